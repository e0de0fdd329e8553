"""The commands about people's votes between clips."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from vdmini_bench.commands.options import JSON, PATH, RESULTS
from vdmini_bench.results.store import Store
from vdmini_bench.system.tables import interval_cell, number_cell, print_table

if TYPE_CHECKING:
    from vdmini_bench.votes.merge import Merged


@click.group()
def votes() -> None:
    """People's votes between clips: the page is made by `report --vote`."""


@votes.command()
@click.argument("files", nargs=-1, required=True, type=PATH)
@click.option(
    "--checks",
    type=click.FloatRange(0, 1),
    default=0.8,
    show_default=True,
    help="The share of attention checks that a voter must pass; 0 lets everybody count.",
)
@RESULTS
@JSON
def merge(files: tuple[Path, ...], checks: float, results: Path, as_json: bool) -> None:
    """Score models by the votes in FILES, and add the scores to their run's table and to the leaderboard."""
    from vdmini_bench.votes.files import read_ballots
    from vdmini_bench.votes.merge import merge_votes, publish_votes

    store = Store(results)
    ballots = read_ballots(files, store)
    merged = merge_votes(ballots, checks)
    rows = publish_votes(merged, ballots, store)
    if as_json:
        click.echo(json.dumps(merged.to_json() | {"rows": [row.to_json() for row in rows]}))
        return
    _show(merged)
    click.echo(f"rows added to {ballots.folder}; see them: vdmini-bench report {ballots.folder.name}")


def _show(merged: Merged) -> None:
    header = ["model", "score", "95 % interval", "won", "tied", "lost", "note"]
    lines = []
    for each in merged.preferences:
        interval = "-" if each.model == merged.baseline or each.interval is None else interval_cell(each.interval)
        lines.append([each.model, number_cell(each.score, 3), interval, *map(str, each.counts), each.note])
    print_table(f"log odds of being preferred to {merged.baseline}", header, lines)
    click.echo(merged)
    if any(each.interval is None and each.score is not None for each in merged.preferences):
        click.echo("no intervals: they need two voters and two prompts or more")
    for voter in merged.voters:
        if not voter.counts:
            click.echo(f"left out: {voter}")
