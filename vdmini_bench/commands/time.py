"""The command that times a model beside its pruned students."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from vdmini_bench.commands.options import DEVICE, JSON, PATH, shipped_or_own, with_download
from vdmini_bench.config.timing import ATTENTION, DTYPES, FEWEST_RUNS, SCOPES, SpeedRequest
from vdmini_bench.models.devices import choose_device
from vdmini_bench.system.progress import quiet_libraries
from vdmini_bench.system.tables import print_table


def _pixels(context: click.Context, parameter: click.Parameter, text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    height, times, width = text.partition("x")
    if not (height.isdecimal() and times and width.isdecimal()):
        raise click.BadParameter("write height and width in pixels, such as 576x1024")
    return int(height), int(width)


def _widths(context: click.Context, parameter: click.Parameter, text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    parts = text.split(",")
    if not all(part.isdecimal() for part in parts):
        raise click.BadParameter("write the channels of each stage, such as 512,448,96,32")
    return tuple(map(int, parts))


@click.command("time")
@click.argument("model")
@click.option("--plan", "plans", multiple=True, metavar="RULE_OR_FILE", help="A student to time; once for each.")
@click.option("--random-weights", is_flag=True, help="Build a published MODEL at full size without its weights.")
@click.option("--resolution", "size", metavar="HEIGHTxWIDTH", callback=_pixels, help="Pixels; the model's own.")
@click.option("--frames", type=click.IntRange(1), help="Frames a clip; the model's own.")
@click.option("--steps", type=click.IntRange(1), help="Sampling steps of a clip; the model's own.")
@click.option("--dtype", type=click.Choice(DTYPES), help="bfloat16 on a GPU and float32 on a CPU when not given.")
@click.option("--attention", type=click.Choice(["auto", *ATTENTION]), default="auto", show_default=True)
@click.option("--compile", "compiled", is_flag=True, help="torch.compile the denoisers, the teacher's too.")
@click.option("--optimize", "optimized", is_flag=True, help="vdmini.optimize all models, the teacher too.")
@click.option("--guidance", type=float, help="Of clips; the pipeline's own, and none for SVD, when not given.")
@click.option("--scope", "scopes", multiple=True, type=click.Choice(SCOPES), help="All of them when not given.")
@click.option("--runs", type=click.IntRange(FEWEST_RUNS), default=FEWEST_RUNS, show_default=True)
@click.option("--warmup", type=click.IntRange(1), default=2, show_default=True)
@click.option("--decoder", metavar="CHANNELS", callback=_widths, help="Students' VAE decoder (SVD): 512,448,96,32.")
@click.option("--channels", type=click.IntRange(1), help="With --random-weights, a narrower model of that topology.")
@click.option("--project-steps", "projected_steps", type=click.IntRange(1), help="Multiply one pass by so many steps.")
@click.option("--blocks/--no-blocks", "attributed", default=True, show_default=True, help="Time each block too.")
@click.option("--trace", type=PATH, help="Leave a Chrome trace of one call each, not timed, in this folder.")
@DEVICE
@click.option("-o", "--output", type=PATH, help="Also leave records and pictures in this folder.")
@JSON
@with_download()
def time(
    output: Path | None, device: str | None, dtype: str | None, trace: Path | None, as_json: bool, **asked: Any
) -> None:
    """Time MODEL and a student for each plan in interleaved repetitions: a pass, the VAE decode, a clip, its phases."""
    from vdmini_bench.speed.benchmark import time_models
    from vdmini_bench.speed.blocks import stage_lines
    from vdmini_bench.speed.rows import row_lines

    chosen = choose_device(device)
    if dtype is None:
        dtype = "bfloat16" if chosen.type == "cuda" else "float32"
    asked["scopes"] = asked["scopes"] or SCOPES
    report = time_models(SpeedRequest(**asked, dtype=dtype), chosen, trace=trace)  # type: ignore[arg-type]
    if output is not None:
        report.write(output)
    if as_json:
        click.echo(json.dumps(report.to_json()))
        return
    print_table(f"{report.request.model}, {report.protocol}", *row_lines(report.rows))
    before = report.roofline
    if report.blocks:
        print_table("one eager denoiser pass by stage", *stage_lines(report.blocks, before.flops_per_second))
    click.echo(
        f"roofline peak here: {before.flops_per_second / 1e12:.4g} TFLOP/s in {before.dtype} products,"
        f" {before.bytes_per_second / 1e9:.4g} GB/s of memory"
    )
    for note in report.notes:
        click.echo(note)
    if output is not None:
        click.echo(f"records and pictures: {output}")
    if trace is not None:
        click.echo(f"traces, for chrome://tracing or ui.perfetto.dev: {trace}")


@click.command("speed")
@click.argument("suite", type=PATH, callback=shipped_or_own)
@click.option("--profile", help="A profile of the suite; its default one when not given.")
@click.option("--entry", "entries", multiple=True, metavar="NAME", help="Only this entry; once for each.")
@click.option("-o", "--output", type=PATH, default=Path("results/speed"), show_default=True)
@JSON
def speed(suite: Path, profile: str | None, entries: tuple[str, ...], output: Path, as_json: bool) -> None:
    """Time what SUITE asks for with random weights; entries that the output folder holds are not timed again."""
    quiet_libraries()
    from vdmini_bench.config.speed import load_speed_suite
    from vdmini_bench.speed.paper import speed_lines
    from vdmini_bench.speed.suite import run_speed_suite

    chosen = load_speed_suite(suite, profile)
    reports = run_speed_suite(chosen, output, entries)
    if as_json:
        click.echo(json.dumps(reports))
        return
    print_table(f"{chosen.name}, profile {chosen.profile}", *speed_lines(reports))
    for report in reports:
        for note in report["notes"]:
            click.echo(f"{report['entry']}: {note}")
    click.echo(f"records, table and pictures: {output}")
