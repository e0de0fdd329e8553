"""The command line: every command parses, calls a few named functions and shows what came back."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING

import click

from vdmini_bench.commands import (
    ablate,
    clips,
    compare,
    distill,
    gate,
    leaderboard,
    models,
    report,
    schema,
    score,
    time,
    vbench,
)
from vdmini_bench.commands.options import DOWNLOAD, JSON, RESULTS, WORKERS
from vdmini_bench.errors import ExitCode
from vdmini_bench.system.program import Program, expected_failures
from vdmini_bench.system.progress import prepare_torch

if TYPE_CHECKING:
    from vdmini_bench.runs.run import RunResult


def show_version(context: click.Context, parameter: click.Parameter, wanted: bool) -> None:
    """Print the version and the environment, and end."""
    if wanted:
        from vdmini_bench.system.fingerprint import describe_environment

        click.echo("\n".join(describe_environment()))
        context.exit()


@click.group(cls=Program)
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=show_version, help="Versions.")
def main() -> None:
    """Prune a video diffusion model, distil it, and measure what that cost and what it bought."""
    prepare_torch()


for module in (models, distill, ablate, score, time, vbench, compare, clips, gate, leaderboard, report, schema):
    for command in module.COMMANDS:
        main.add_command(command)


@main.command()
@click.argument("suite", type=click.Path(path_type=Path))
@click.option("--profile", help="A profile of the suite; its default one when not given.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a key, e.g. distill.steps=100.")
@click.option("--plan", "only_plan", is_flag=True, help="Show jobs, cache, time and disk; run nothing.")
@WORKERS
@RESULTS
@DOWNLOAD
@JSON
@expected_failures
def run(
    suite: Path, profile: str | None, overrides: tuple[str, ...], only_plan: bool, workers: int | None, results: Path,
    download: bool, as_json: bool,
) -> None:  # fmt: skip
    """Prune, distil, sample, score and time what SUITE asks for; what is done already is not done again."""
    from vdmini_bench.system.sharing import lead

    lead(lambda: _run(suite, profile, overrides, only_plan, workers, results, download, as_json))


@main.group()
def assets() -> None:
    """Weights and data: list, fetch, import, verify."""


assets.add_command(vbench.environment)


@assets.command("list")
@JSON
@expected_failures
def assets_list(as_json: bool) -> None:
    """What there is, from where, under which licence, and whether it is here."""
    from vdmini_bench.assets.cache import asset_path
    from vdmini_bench.assets.catalogue import ASSETS
    from vdmini_bench.system.tables import print_table

    found = {name: asset_path(name) for name in ASSETS}
    if as_json:
        click.echo(json.dumps({name: None if path is None else str(path) for name, path in found.items()}))
        return
    lines = [
        [
            asset.name,
            "here" if found[asset.name] else "missing",
            f"{asset.size_bytes / 1e6:,.0f} MB" if asset.size_bytes else "unknown",
            asset.licence,
            asset.source,
            asset.needed_for,
        ]
        for asset in ASSETS.values()
    ]
    print_table("assets", ["name", "state", "size", "licence", "from", "needed for"], lines)


@assets.command("fetch")
@click.argument("name")
@expected_failures
def assets_fetch(name: str) -> None:
    """Download an asset that a package registry has."""
    from vdmini_bench.assets.cache import fetch_asset

    click.echo(str(fetch_asset(name)))


@assets.command("import")
@click.argument("name")
@click.argument("path", type=click.Path(path_type=Path))
@expected_failures
def assets_import(name: str, path: Path) -> None:
    """Take over a file or folder you have as asset NAME."""
    from vdmini_bench.assets.cache import import_asset
    from vdmini_bench.metrics.converters import CONVERTERS

    click.echo(str(import_asset(name, path, convert=CONVERTERS)))
    if name == "i3d-torchscript":
        from vdmini_bench.metrics.agreement import imported_agreement

        click.echo(f"against the packaged weights: {imported_agreement()}")


@assets.command("verify")
@click.argument("names", nargs=-1)
@expected_failures
def assets_verify(names: tuple[str, ...]) -> None:
    """Check the sha256 of NAMES, or of everything that is here."""
    from vdmini_bench.assets.cache import asset_path, verify_asset
    from vdmini_bench.assets.catalogue import ASSETS

    chosen = names or tuple(name for name in ASSETS if asset_path(name) is not None)
    problems = {name: verify_asset(name) for name in chosen}
    for name, problem in problems.items():
        click.echo(f"{name}: {problem or 'intact'}")
    if not chosen:
        click.echo("no assets here yet; see: vdmini-bench assets list")
    if any(problems.values()):
        sys.exit(ExitCode.FAILED)


@main.command()
@click.option("--all", "in_full", is_flag=True, help="Everything that was looked at, and the next step for each.")
@JSON
@expected_failures
def doctor(in_full: bool, as_json: bool) -> None:
    """Say what works here and what does not: versions, device, disk, and what each command lacks."""
    from vdmini_bench.commands.doctor import examine, overview
    from vdmini_bench.system.progress import quiet_libraries
    from vdmini_bench.system.tables import print_table

    quiet_libraries()
    findings = examine()
    if as_json:
        click.echo(json.dumps([{"what": item.what, "state": item.state, "next": item.next} for item in findings]))
    elif in_full:
        print_table("doctor", ["what", "state", "next"], [[item.what, item.state, item.next] for item in findings])
    else:
        for line in overview(findings):
            click.echo(fill(line, 79, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False))
    if not all(item.fine for item in findings):
        sys.exit(ExitCode.FAILED)


def _run(
    suite: Path, profile: str | None, overrides: tuple[str, ...], only_plan: bool, workers: int | None, results: Path,
    download: bool, as_json: bool,
) -> None:  # fmt: skip
    from vdmini_bench.config.vbench import load_any_suite
    from vdmini_bench.system.progress import quiet_libraries, say

    chosen = load_any_suite(suite, profile, overrides)
    banner = f"suite {chosen.name}, profile {chosen.profile_name}"
    (say if as_json else click.echo)(f"{banner}: {chosen.profile.stand_in}" if chosen.profile.stand_in else banner)
    quiet_libraries()
    if download:
        from vdmini_bench.models.sampling import fetch_model

        fetch_model(chosen.profile.teacher)
    if only_plan:
        from vdmini_bench.runs.dry_run import preview_run, print_preview

        preview = preview_run(chosen, results)
        click.echo(json.dumps(preview.to_json())) if as_json else print_preview(preview)
        return
    from vdmini_bench.runs.run import run_suite
    from vdmini_bench.system.workers import choose_workers

    result = run_suite(chosen, results, choose_workers(workers))
    if as_json:
        click.echo(json.dumps(result.to_json()))
    else:
        _print_run(chosen.name, result)
    for problem in result.problems:
        click.echo(problem, err=True)
    sys.exit(result.exit_code)


def _print_run(suite: str, result: RunResult) -> None:
    from vdmini_bench.results.table import wide_table
    from vdmini_bench.system.tables import print_table

    header, lines = wide_table(result.rows)
    print_table(f"{suite}, profile {result.profile}", header, lines)
    if result.stand_in:
        click.echo(result.stand_in)
    click.echo(f"{result.status} in {result.seconds:.0f} s; {result.ran} jobs ran, {result.cached} were there already")
    click.echo(f"report, table, contact sheet and records: {result.run_dir}")
