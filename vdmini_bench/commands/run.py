"""The command that runs a suite."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

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

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vdmini_bench.config.suite import Suite
    from vdmini_bench.config.vbench import VBenchSuite
    from vdmini_bench.runs.tasks import Executor, Place
    from vdmini_bench.runs.until_decided import Step


@click.command()
@click.argument("suite", type=PATH, callback=shipped_or_own)
@PROFILE
@OVERRIDES
@click.option("--dry-run", is_flag=True, help="Show jobs, cache, time, disk and what is missing; run nothing.")
@click.option(
    "--card", help="With --dry-run: memory and predicted time on a card such as h100-80gb; exit 2 where it cannot fit."
)
@WORKERS
@click.option(
    "--executor",
    type=click.Choice(["local", "slurm"]),
    help="Run each job as a task, on this machine or on a Slurm cluster that this is the front of.",
)
@click.option("--slots", type=click.IntRange(1), help="Jobs at once, each a task; here if no --executor is given.")
@click.option(
    "--executor-set",
    "settings",
    multiple=True,
    metavar="KEY=VALUE",
    help="What submitit asks of the cluster, e.g. slurm_partition=gpu, gpus_per_node=1.",
)
@click.option(
    "--until",
    type=click.Choice(["decided"]),
    help="Sample prompt after prompt, and stop where it is decided whether models are no worse than the baseline.",
)
@click.option(
    "--margin", type=click.FloatRange(min=0, min_open=True), help="With --until: how much worse in total is fine."
)
@RESULTS
@DOWNLOAD
@JSON
@led
def run(
    suite: Path, profile: str | None, overrides: tuple[str, ...], dry_run: bool, card: str | None, workers: int | None,
    executor: Executor | None, slots: int | None, settings: tuple[str, ...], until: str | None, margin: float | None,
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
    if (until is None) != (margin is None):
        raise click.UsageError("--until decided and --margin go together: how much worse a model may be, from 0 to 1")
    if settings and executor is None:
        raise click.UsageError("--executor-set is for an executor: add --executor slurm")
    if dry_run:
        _show_preview(chosen, results, card, margin, as_json)
    if card is not None:
        raise SuiteError("--card is for a dry run: add --dry-run")
    place = None if (executor, slots) == (None, None) else place_of(executor or "local", slots or 2, settings)
    if place is not None:
        place.prepare()
    from vdmini_bench.runs.run import BY_VALUES, run_suite

    if margin is not None:
        from vdmini_bench.runs.until_decided import run_until_decided

        def part_of(part: str) -> Suite | VBenchSuite:
            return load_any_suite(suite, profile, (*overrides, f"vbench.part={part}"))

        _show_steps(run_until_decided(chosen, part_of, results, margin, choose_workers(workers), place), as_json)
    result = run_suite(chosen, results, choose_workers(workers), place)
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


def _show_preview(
    suite: Suite | VBenchSuite, results: Path, card: str | None, margin: float | None, as_json: bool
) -> NoReturn:
    """Show what a run would do, with a margin part by part, and end with 2 where it does not fit the card."""
    from vdmini_bench.results.store import Store
    from vdmini_bench.runs.dry_run import preview_run, print_preview
    from vdmini_bench.runs.until_decided import parts_of, whole_of

    vbench = None if margin is None else whole_of(suite)
    preview = preview_run(suite, results, card)
    # The prompts may be what is missing.
    parts = None if vbench is None or preview.missing else parts_of(vbench, Store(results))
    if as_json:
        until = {} if parts is None else {"until": vars(parts) | {"margin": margin}}
        click.echo(json.dumps(preview.to_json() | until))
    else:
        print_preview(preview)
        if margin is not None:
            how = "parts that are known once nothing is missing" if parts is None else parts
            click.echo(f"that is of all prompts; they are run in {how}, until it is decided by {margin:g}")
    sys.exit(ExitCode.OK if all(stage.fits for stage in preview.on_card) else ExitCode.USAGE)


def _show_steps(steps: Iterator[Step], as_json: bool) -> NoReturn:
    """Show what is decided after each part as it comes, and end with the last one's exit code."""
    from vdmini_bench.compare.until_decided import HEADER

    for step in steps:
        title = f"after {step.prompts} of {step.of} prompts, no worse by {step.margin:g} at most"
        if as_json:
            click.echo(json.dumps(step.to_json() | {"run_dir": str(step.run_dir)}))
        elif step.decided:
            print_table(title, HEADER, [each.cells() for each in step.decided])
    if not as_json:
        click.echo(f"report, table and records: {step.run_dir}")
    for problem in step.problems:
        click.echo(problem, err=True)
    sys.exit(step.exit_code)


def place_of(executor: Executor, slots: int, settings: tuple[str, ...]) -> Place:
    """Where tasks run; raises SuiteError for a cluster without submitit, under a launcher, or for no `KEY=VALUE`."""
    from vdmini_bench.runs.tasks import Place
    from vdmini_bench.system.launch import process_count

    if executor == "slurm" and importlib.util.find_spec("submitit") is None:
        raise SuiteError("--executor slurm needs submitit: pip install 'vdmini[executor]'")

    if process_count() > 1:
        raise SuiteError("tasks are processes of their own: run it without a launcher")
    pairs = [setting.partition("=") for setting in settings]
    if wrong := next((name for name, equals, _ in pairs if not equals), None):
        raise SuiteError(f"--executor-set {wrong}: give KEY=VALUE, such as slurm_partition=gpu")
    return Place(executor, slots, {name: value for name, _, value in pairs})
