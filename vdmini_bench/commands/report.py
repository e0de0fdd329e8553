"""The command that shows a run as one HTML file."""

from __future__ import annotations

from pathlib import Path

import click

from vdmini_bench.commands.options import PATH, RESULTS
from vdmini_bench.errors import BenchError
from vdmini_bench.results.runs import whole_run
from vdmini_bench.results.store import Store


@click.command()
@click.argument("run", default="latest")
@click.option("-o", "--output", type=PATH, help="The file; report.html or vote.html in the run when not given.")
@click.option("--importance", type=PATH, help="A folder that `importance` left; one of the teacher if found.")
@click.option("--vote", is_flag=True, help="A page on which people vote blind between the run's clips, not the report.")
@RESULTS
def report(run: str, output: Path | None, importance: Path | None, vote: bool, results: Path) -> None:
    """Write RUN as one HTML file that opens from disk: tables, pictures, and clips that play in step.

    RUN is a run's folder or name, the folder of records that `score` names, or latest.
    """
    from vdmini_bench.report.page import write_report
    from vdmini_bench.votes.page import write_vote_page

    if vote and importance is not None:
        raise click.UsageError("--importance is for the report: leave it out with --vote")
    folder, _ = whole_run(run, Store(results))
    try:
        path = write_vote_page(folder, output) if vote else write_report(folder, output, importance)
    except OSError as error:
        raise BenchError(f"{output or folder}: cannot be written ({error}); give another file with -o") from error
    click.echo(f"{path} ({path.stat().st_size / 1e6:.1f} MB)")
    if vote:
        click.echo("send the page alone: what its names mean stays in the run; then: vdmini-bench votes merge FILES")
