"""The command that distils alone: no sampling, no scores."""

from __future__ import annotations

import json
from pathlib import Path

import click

from vdmini_bench.commands.options import (
    DEVICE,
    DOWNLOAD,
    DTYPE,
    JSON,
    OVERRIDES,
    PATH,
    PROFILE,
    RESULTS,
    led,
    shipped_or_own,
)
from vdmini_bench.system.progress import quiet_libraries


@click.command()
@click.argument("file", type=PATH, callback=shipped_or_own)
@PROFILE
@OVERRIDES
@click.option("--model", help="The row of a suite to distil; the first one that is distilled when not given.")
@click.option("--dry-run", is_flag=True, help="Show steps, memory, time and cost; write nothing.")
@click.option("--timing/--no-timing", default=True, show_default=True, help="With --dry-run, time two real steps.")
@click.option("--price-per-hour", type=click.FloatRange(min=0), help="Of the whole machine, to print costs.")
@RESULTS
@DEVICE
@DTYPE
@DOWNLOAD
@JSON
@led
def distill(
    file: Path, profile: str | None, overrides: tuple[str, ...], model: str | None, dry_run: bool, timing: bool,
    price_per_hour: float | None, results: Path, dtype: str | None, download: bool, as_json: bool,
) -> None:  # fmt: skip
    """Encode, prune and distil what FILE asks for: a suite, or a configuration of its own, for any family.

    Goes on where it stopped. On several GPUs: accelerate launch -m vdmini_bench distill FILE
    """
    quiet_libraries()
    from vdmini_bench.config.distillation import DistillConfig, load_distillation
    from vdmini_bench.models.sampling import fetch_model
    from vdmini_bench.runs.distillation import open_distillation, run_distillation
    from vdmini_bench.runs.distillation_dry_run import plan_distillation, print_plan
    from vdmini_bench.suites.found_models import wanted_sources

    asked = load_distillation(file, profile, overrides if dtype is None else (*overrides, f"dtype={dtype}"))
    if download:
        for source in [asked.teacher] if isinstance(asked, DistillConfig) else wanted_sources(asked.profile):
            fetch_model(source)
    distillation = open_distillation(asked, results, write=not dry_run, model=model)
    if dry_run:
        plan = plan_distillation(distillation, timing=timing)
        click.echo(json.dumps(plan.to_json())) if as_json else print_plan(plan, price_per_hour)
        return
    outcome = run_distillation(distillation)
    cost = None if price_per_hour is None else outcome.cost_per_1000_steps(price_per_hour)
    if as_json:
        click.echo(json.dumps({**outcome.to_json(), "cost_per_1000_steps": cost}))
        return
    found = outcome.summary
    click.echo(
        f"{found['steps']:,} steps, {found['clips_seen']:,} clips seen; {found['timed_steps']:,} of them timed:"
        f" {found['seconds'] / 3600:.3f} h on {found['processes']} x {found['device']}, peak memory"
        f" {found['peak_memory_bytes'] / 2**30:.2f} GiB"
    )
    price = "" if cost is None else f", {cost:.2f} at {price_per_hour:g} an hour"
    click.echo(f"{found['hours_per_1000_steps']:.3f} h for 1,000 steps{price}")
    losses = ", ".join(f"{name} {value:.4g}" for name, value in outcome.losses.items())
    click.echo(f"losses, mean of the last {outcome.averaged_steps} steps: {losses}")
    click.echo(f"each step's: {outcome.losses_file}")
    click.echo(f"student: {outcome.student}")
