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
@click.option("-o", "--output", type=PATH, help="The file; report.html in the run when not given.")
@click.option("--importance", type=PATH, help="A folder that `importance` left; one of the teacher if found.")
@RESULTS
def report(run: str, output: Path | None, importance: Path | None, results: Path) -> None:
    """Write RUN as one HTML file that opens from disk: tables, pictures, and clips that play in step.

    RUN is a run's folder or name, the folder of records that `score` names, or latest.
    """
    from vdmini_bench.report.page import write_report

    folder, _ = whole_run(run, Store(results))
    try:
        path = write_report(folder, output, importance)
    except OSError as error:
        raise BenchError(f"{output or folder}: cannot be written ({error}); give another file with -o") from error
    click.echo(f"{path} ({path.stat().st_size / 1e6:.1f} MB)")
