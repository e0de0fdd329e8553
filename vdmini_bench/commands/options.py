"""What commands share: options, and how expected failures end."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import ParamSpec, TypeVar

import click

from vdmini_bench.errors import BenchError, ExitCode

P = ParamSpec("P")
R = TypeVar("R")

RESULTS = click.option(
    "--results", type=click.Path(path_type=Path), default=Path("results"), show_default=True, help="Results folder."
)
JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of a table.")


def SAMPLING(command: Callable[P, R]) -> Callable[P, R]:  # noqa: N802 - a decorator like the options above
    """The options that say how a model samples."""
    for option in (
        click.option("--batch-size", type=click.IntRange(1), default=8, show_default=True),
        click.option("--guidance", type=float, help="Classifier-free guidance; the model's own when not given."),
        click.option("--size", metavar="HEIGHTxWIDTH", help="Pixels, e.g. 576x1024."),
        click.option("--frames", type=click.IntRange(1), help="Frames a clip."),
        click.option("--steps", type=click.IntRange(1), help="Sampling steps."),
    ):
        command = option(command)
    return command


def expected_failures(command: Callable[P, R]) -> Callable[P, R]:
    """Turn expected errors into one message and their exit code; an interrupt says how to go on."""

    @wraps(command)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        from vdmini_bench.assets import AssetError

        try:
            return command(*args, **kwargs)
        except (BenchError, AssetError) as error:
            click.echo(f"error: {error}", err=True)
            sys.exit(error.exit_code if isinstance(error, BenchError) else ExitCode.FAILED)
        except KeyboardInterrupt:
            click.echo("interrupted; the same command continues where it stopped", err=True)
            sys.exit(ExitCode.INTERRUPTED)

    return wrapper
