"""The command that measures what each block of a transformer carries."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import click

from vdmini_bench.commands.options import DEVICE, JSON, PATH, shipped_or_own, with_download
from vdmini_bench.system.files import check_can_write
from vdmini_bench.system.tables import print_table


@click.command()
@click.argument("study", type=PATH, callback=shipped_or_own)
@click.option("--profile", help="The study's default one when not given.")
@click.option(
    "-o", "--output", type=PATH, default=Path("results/depth"), show_default=True,
    help="Where rows, verdicts and the picture go.",
)  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Show how many clips, FLOPs and predicted hours; sample nothing.")
@click.option("--card", default="h200", show_default=True, help="With --dry-run: whose hours, such as h100-80gb.")
@DEVICE
@JSON
@with_download()
def depth(
    study: Path, profile: str | None, output: Path, dry_run: bool, card: str, device: str | None, as_json: bool
) -> None:  # fmt: skip
    """Remove and patch each block of the teachers in STUDY, a file or `depth`: do deep ones carry motion?"""
    from vdmini_bench.config.depth import load_depth_study
    from vdmini_bench.studies.depth import measure_teachers
    from vdmini_bench.studies.depth_results import plot_depth, verdict_lines, write_depth
    from vdmini_bench.studies.depth_verdicts import contrasts

    asked = load_depth_study(study, profile)
    if dry_run:
        from vdmini_bench.studies.depth_cost import cost_lines

        header, lines = cost_lines(asked, card)
        if as_json:
            click.echo(json.dumps([dict(zip(header, line, strict=True)) for line in lines]))
        else:
            print_table(f"{asked.name}: nothing was sampled", header, lines)
        return
    check_can_write(output)
    effects = measure_teachers(asked, output, device)
    found = contrasts(effects)
    write_depth(output, asked, effects, found)
    plot_depth(effects, output / "depth.png")
    if as_json:
        click.echo(json.dumps({"contrasts": [asdict(each) for each in found], "output": str(output)}))
        return
    parts = f"{len(asked.teachers)} teachers" if asked.parts == 1 else f"{len(effects)} sets of clips"
    print_table(": ".join(filter(None, (f"{asked.name}, {parts}", asked.stand_in))), *verdict_lines(found))
    click.echo(f"rows, verdicts and picture: {output}")
