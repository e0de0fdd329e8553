"""The commands about leaderboard files: show, merge, history."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from vdmini_bench.commands.options import PATH, as_one, with_format
from vdmini_bench.errors import BenchError, NothingMeasuredError, SuiteError
from vdmini_bench.results.leaderboard import add_rows, latest_rows, read_leaderboard, rows_to_csv
from vdmini_bench.results.records import is_file
from vdmini_bench.system.tables import Format, number_cell, show_table

if TYPE_CHECKING:
    from vdmini_bench.compare.history import Series
    from vdmini_bench.results.score import Row

FILE = click.argument("file", type=PATH, default=Path("results/leaderboard.csv"))
MOST_PANELS = 24
MEASURED = ("suite", "profile", "model", "recipe", "metric")
COLUMNS = (*MEASURED, "value", "se", "unit", "n", "status", "machine_id", "date", "commit")


def chosen_rows(metric: str | None, model: str | None, profile: str | None, suite: str | None) -> Callable[[Row], bool]:
    """Whether a row is one that the options ask for."""
    asked = {"metric": metric, "model": model, "profile": profile, "suite": suite}
    return lambda row: all(value is None or getattr(row, name) == value for name, value in asked.items())


FILTERS = [
    click.option(f"--{name}", help=f"Only rows of this {name}.") for name in ("metric", "model", "profile", "suite")
]
with_filters = as_one("wanted", chosen_rows, *FILTERS)


@click.group()
def leaderboard() -> None:
    """Leaderboard files: show, merge, history."""


@leaderboard.command()
@FILE
@with_filters
@click.option("--all", "everything", is_flag=True, help="Every measurement, not only the newest of each.")
@with_format
def show(file: Path, wanted: Callable[[Row], bool], everything: bool, form: Format) -> None:
    """Show the newest measurements in FILE."""
    rows = [row for row in _read(file) if wanted(row)]
    rows = rows if everything else sorted(latest_rows(rows), key=lambda row: (row.suite, row.profile, row.model))
    if form == "json":
        click.echo(json.dumps({"rows": [row.to_json() for row in rows]}))
    elif form == "csv":
        # Whole rows: what was shown can be read again.
        click.echo(rows_to_csv(rows), nl=False)
    elif form == "parquet":
        from vdmini_bench.results.frame import frame_of

        click.echo(frame_of(rows).to_parquet(index=False), nl=False)
    else:
        header = [column for column in COLUMNS if column != "recipe" or any(row.recipe for row in rows)]
        show_table(form, str(file), header, [[getattr(row, column) for column in header] for row in rows])


@leaderboard.command()
@click.argument("files", nargs=-1, required=True, type=PATH)
@click.option("-o", "--output", required=True, type=PATH, help="May be one of FILES.")
def merge(files: tuple[Path, ...], output: Path) -> None:
    """Write the rows of FILES to one file: sorted, each once, beside those that it has."""
    rows = [row for file in files for row in _read(file)]
    add_rows(output, rows)
    click.echo(f"{len(read_leaderboard(output))} rows: {output}")


@leaderboard.command()
@FILE
@with_filters
@click.option("-o", "--output", type=PATH, help="Draw the trend into this picture (.png, .svg).")
@with_format
def history(file: Path, wanted: Callable[[Row], bool], output: Path | None, form: Format) -> None:
    """Show measurements of FILE over time, and the steps in them."""
    from vdmini_bench.compare.history import METHOD, collect_series, describe_step, find_steps

    if output is not None and output.suffix not in (".png", ".svg", ".pdf"):
        raise SuiteError(f"{output}: give a picture's name that ends with .png, .svg or .pdf")
    series = collect_series(_read(file), wanted)
    if not series:
        raise NothingMeasuredError(f"{file} has no such measurement; see: vdmini-bench leaderboard show {file}")
    if output is not None:
        _draw(series, output)
    if form == "json":
        found = [each.to_json() for each in series]
        click.echo(json.dumps({"method": METHOD, "series": found, "picture": str(output) if output else None}))
        return
    header = [*MEASURED, "machine", "date", "commit", "value", "±"]
    measured = [
        (*(getattr(each, name) for name in (*MEASURED, "machine_id")), point.date, point.commit, point)
        for each in series
        for point in each.points
    ]
    lines = [[*names, number_cell(point.value, 6), number_cell(point.standard_error, 3)] for *names, point in measured]
    records = [
        dict(zip(header, (*names, point.value, point.standard_error), strict=True)) for *names, point in measured
    ]
    show_table(form, f"{file} over time", header, lines, records)
    if form != "table":
        return
    steps = [(each, step) for each in series for step in find_steps(each)]
    for each, step in steps:
        click.echo(f"step in {each.model} {each.metric}: {describe_step(each, step)}")
    click.echo(f"{len(steps)} steps; {METHOD}")
    if output is not None:
        click.echo(f"picture: {output}")


def _draw(series: list[Series], output: Path) -> None:
    from vdmini_bench.report.trend import plot_trend

    if len(series) > MOST_PANELS:
        raise SuiteError(f"{len(series)} series are too many for one picture: choose with --metric, --model or --suite")
    try:
        plot_trend(series, output)
    except OSError as error:
        raise BenchError(f"{output}: cannot be written ({error})") from error


def _read(file: Path) -> list[Row]:
    if not is_file(file):
        raise SuiteError(f"{file}: no such leaderboard; a run writes results/leaderboard.csv")
    return read_leaderboard(file)
