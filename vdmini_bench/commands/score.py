"""The command that scores videos made elsewhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from vdmini_bench.commands.options import JSON, PATH, PROFILE, RESULTS, WORKERS, led, shipped_or_own
from vdmini_bench.system.progress import prepare_torch
from vdmini_bench.system.tables import number_cell, print_table
from vdmini_bench.system.workers import choose_workers

if TYPE_CHECKING:
    from vdmini_bench.suites.folder import Rates


@click.command()
@click.argument("videos", metavar="DIR_OF_VIDEOS", type=PATH)
@click.option("--suite", "suite_file", required=True, type=PATH, callback=shipped_or_own, help="Whose protocol to use.")
@PROFILE
@click.option("--against", type=PATH, help="A folder of real videos, not the suite's own.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a key of the profile.")
@click.option(
    "--rates",
    type=click.Choice(["check", "resample", "ignore"]),
    default="check",
    show_default=True,
    help="What to do with videos of another frame rate than the protocol's: refuse, resample, or take every frame.",
)
@click.option("--flow/--no-flow", default=True, show_default=True, help="Measure flow_distance; FVD alone is quicker.")
@click.option("--name", help="What the rows call these videos; the folder's name when not given.")
@WORKERS
@RESULTS
@JSON
@led
def score(
    videos: Path, suite_file: Path, profile: str | None, against: Path | None, overrides: tuple[str, ...],
    rates: Rates, flow: bool, name: str | None, workers: int | None, results: Path, as_json: bool,
) -> None:  # fmt: skip
    """Score DIR_OF_VIDEOS and its subfolders under a suite's protocol; nothing is generated."""
    from vdmini_bench.config.suite import load_suite
    from vdmini_bench.runs.score_folder import score_folder
    from vdmini_bench.suites.folder import ScoreRequest

    suite = load_suite(suite_file, profile, overrides)
    prepare_torch()
    request = ScoreRequest(suite, videos, against, rates, name, flow)
    found = score_folder(request, results, choose_workers(workers))
    if as_json:
        click.echo(json.dumps(found.to_json()))
        return
    lines = [
        [each.metric, number_cell(each.value, 6), number_cell(each.standard_error, 3), str(each.n), each.status]
        for each in found.scores
    ]
    print_table(request.model, ["metric", "value", "±", "clips", "status"], lines)
    click.echo(f"protocol {found.scores[0].protocol}")
    for row in found.rows:
        if row.status != "ok" and row.note:
            click.echo(f"{row.metric} {'failed' if row.status == 'failed' else 'is unavailable'}: {row.note}")
    if suite.profile.stand_in:
        click.echo(suite.profile.stand_in)
    click.echo(f"{'scored before' if found.cached else 'scored now'}; records: {found.folder}")
