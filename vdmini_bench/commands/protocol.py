"""The commands that say what decided a number: all of its settings, and in which two results differ."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path

import click

from vdmini_bench.commands.options import JSON, RESULTS
from vdmini_bench.errors import ExitCode
from vdmini_bench.results.store import Store
from vdmini_bench.system.tables import print_table


@click.group()
def protocol() -> None:
    """What decides a number: show all settings, or name those in which two results differ."""


@protocol.command()
@click.argument("name", required=False)
@RESULTS
@JSON
def show(name: str | None, results: Path, as_json: bool) -> None:
    """Show all settings of NAME, or the presets where none is given.

    NAME is a run's folder or name, or latest; RUN:ROW; a folder or JSON file of results or of sampled clips; a preset.
    """
    from vdmini_bench.compare.settings import UCF101, describe
    from vdmini_bench.config.protocols import PRESETS
    from vdmini_bench.config.sampling import sampling_presets

    if name is None:
        lines = [[each, str(preset.version), preset.source.repository] for each, preset in sampling_presets().items()]
        lines += [[UCF101 + each, str(preset.version), preset.source] for each, preset in PRESETS.items()]
        header = ["preset", "version", "source"]
        if as_json:
            click.echo(json.dumps({"presets": [dict(zip(header, line, strict=True)) for line in lines]}))
        else:
            print_table("presets", header, lines)
        return
    found = describe(name, Store(results))
    if as_json:
        click.echo(json.dumps(asdict(found)))
        return
    print_table(name, ["setting", "value"], [[setting, _text(value)] for setting, value in found.settings.items()])
    if found.about:
        click.echo(found.about)


@protocol.command()
@click.argument("a")
@click.argument("b")
@RESULTS
@JSON
def diff(a: str, b: str, results: Path, as_json: bool) -> None:
    """Name every setting in which A and B differ, each as `show` takes it; of a preset, those that it has.

    Exit codes: 0 they differ in none; 2 one means nothing; 5 they differ.
    """
    from vdmini_bench.compare.settings import describe, setting_differences

    found = setting_differences(*(describe(name, Store(results)) for name in (a, b)))
    if as_json:
        click.echo(json.dumps({"a": a, "b": b, "same": not found, "differences": [*map(asdict, found)]}))
    elif found:
        lines = [[each.setting, _text(each.a), _text(each.b)] for each in found]
        print_table(f"{len(found)} settings differ", ["setting", a, b], lines)
    else:
        click.echo("no setting differs")
    sys.exit(ExitCode.NOT_COMPARABLE if found else ExitCode.OK)


def _text(value: object) -> str:
    """A value as a cell has it; what is not set is a dash."""
    if value is None:
        return "-"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
