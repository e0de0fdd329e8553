"""The command that prints JSON schemas."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from vdmini_bench.config.json_schema import Kind


KINDS = ("suite", "thresholds", "distillation", "speed", "depth")


@click.command()
@click.argument("kind", type=click.Choice(KINDS), default="suite")
def schema(kind: Kind) -> None:
    """Print the JSON schema of a kind of file, by which editors complete and check it."""
    from vdmini_bench.config.json_schema import schema_of

    click.echo(json.dumps(schema_of(kind), indent=2))
