"""The command that runs a suite."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from vdmini_bench.commands.options import (
    DOWNLOAD,
    JSON,
    OVERRIDES,
    PATH,
    PROFILE,
    RESULTS,
    WORKERS,
    led,
    shipped_or_own,
)
from vdmini_bench.errors import ExitCode, SuiteError
from vdmini_bench.system.progress import quiet_libraries, say
from vdmini_bench.system.tables import print_table
from vdmini_bench.system.workers import choose_workers


@click.command()
@click.argument("suite", type=PATH, callback=shipped_or_own)
@PROFILE
@OVERRIDES
@click.option("--dry-run", is_flag=True, help="Show jobs, cache, time, disk and what is missing; run nothing.")
@click.option(
    "--card", help="With --dry-run: memory and predicted time on a card such as h100-80gb; exit 2 where it cannot fit."
)
@WORKERS
@RESULTS
@DOWNLOAD
@JSON
@led
def run(
    suite: Path, profile: str | None, overrides: tuple[str, ...], dry_run: bool, card: str | None, workers: int | None,
    results: Path, download: bool, as_json: bool,
) -> None:  # fmt: skip
    """Prune, distil, sample, score and time what SUITE asks for; what is done already is not done again."""
    from vdmini_bench.config.vbench import load_any_suite

    chosen = load_any_suite(suite, profile, overrides)
    banner = f"suite {chosen.name}, profile {chosen.profile_name}"
    (say if as_json else click.echo)(f"{banner}: {chosen.profile.stand_in}" if chosen.profile.stand_in else banner)
    quiet_libraries()
    if download:
        from vdmini_bench.models.sampling import fetch_model
        from vdmini_bench.suites.found_models import wanted_sources

        for source in wanted_sources(chosen.profile):
            fetch_model(source)
    if dry_run:
        from vdmini_bench.runs.dry_run import preview_run, print_preview

        preview = preview_run(chosen, results, card)
        click.echo(json.dumps(preview.to_json())) if as_json else print_preview(preview)
        sys.exit(ExitCode.OK if all(stage.fits for stage in preview.on_card) else ExitCode.USAGE)
    if card is not None:
        raise SuiteError("--card is for a dry run: add --dry-run")
    from vdmini_bench.runs.run import BY_VALUES, run_suite

    result = run_suite(chosen, results, choose_workers(workers))
    if as_json:
        click.echo(json.dumps(result.to_json()))
    else:
        for title, table in result.tables:
            print_table(title, *table)
        if result.remarks:
            click.echo("\n".join([BY_VALUES, *(f"- {remark}" for remark in result.remarks)]))
        if result.stand_in:
            click.echo(result.stand_in)
        jobs = f"{result.ran} jobs ran, {result.cached} were there already"
        click.echo(f"{result.status} in {result.seconds:.0f} s; {jobs}")
        click.echo(f"report, table, contact sheet and records: {result.run_dir}")
    for problem in result.problems:
        click.echo(problem, err=True)
    sys.exit(result.exit_code)
