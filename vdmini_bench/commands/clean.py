"""The command that frees disk space in a results folder."""

from __future__ import annotations

from pathlib import Path

import click

from vdmini_bench.commands.options import RESULTS
from vdmini_bench.results.runs import whole_run
from vdmini_bench.results.store import Store
from vdmini_bench.system.tables import print_table


@click.command()
@click.argument("runs", nargs=-1)
@click.option("--unlisted", is_flag=True, help="Also work that no run lists: of single distillations, of killed runs.")
@click.option("--yes", is_flag=True, help="Remove it; without this the command only says what it would free.")
@RESULTS
def clean(runs: tuple[str, ...], unlisted: bool, yes: bool, results: Path) -> None:
    """Remove RUNS (names or folders) and the finished work that no other run needs; the leaderboard keeps its rows."""
    from vdmini_bench.runs.cleaning import free, freeable

    store = Store(results)
    found = freeable(store, [whole_run(run, store)[0] for run in runs], unlisted=unlisted)
    if not found:
        click.echo("nothing to free: name runs, or see --unlisted")
        return
    print_table(
        "can go", ["folder", "what", "MB"], [[str(each.folder), each.what, f"{each.size / 1e6:.1f}"] for each in found]
    )
    total = f"{sum(each.size for each in found) / 1e9:.2f} GB in {len(found)} folders"
    if not yes:
        click.echo(f"{total}: add --yes to remove them")
        return
    free(store, found)
    click.echo(f"removed {total}")
