"""Commands on one model: inspect it, prune it, sample from it."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path

import click

from vdmini_bench.commands.options import (
    CHANNELS,
    DEVICE,
    DTYPE,
    JSON,
    PATH,
    Conditions,
    with_conditions,
    with_download,
)
from vdmini_bench.models.devices import dtype_name
from vdmini_bench.system.files import check_can_write
from vdmini_bench.system.tables import print_table


@click.command()
@click.argument("model")
@click.option("--plan", "rule_or_file", metavar="RULE_OR_FILE", help="Show what a rule or a plan file removes.")
@CHANNELS
@click.option("--picture", type=PATH, help="Also draw the blocks into this PNG or SVG.")
@click.option("--card", help="Also predict a pass in bfloat16 on a card such as h100-80gb, and the plan's speed-up.")
@JSON
@with_download(weights=False)
def inspect(
    model: str, rule_or_file: str | None, channels: str | None, picture: Path | None, card: str | None, as_json: bool
) -> None:
    """Show the blocks of MODEL (a published or embedded name, a folder, a hub id) and their costs; reads no weights."""
    from vdmini_bench.models.inspect import block_lines, inspect_model

    inspection = inspect_model(model, rule_or_file, channels)
    if picture is not None:
        from vdmini_bench.models.plots import plot_blocks

        plot_blocks(inspection, picture)
    predicted = {}
    if card is not None:
        from vdmini_bench.speed.cards import predict_pass

        predicted = predict_pass(inspection, card)
    if as_json:
        click.echo(json.dumps(inspection.to_json() | ({"predicted": predicted} if predicted else {})))
        return
    title = f"{model}, family {inspection.teacher.family}, at {inspection.teacher.input}"
    title += "" if rule_or_file is None else f", plan {rule_or_file}"
    title += "" if inspection.channels is None else f", channels {inspection.channels}"
    print_table(title, *block_lines(inspection))
    if predicted:
        told = f"a pass takes {predicted['teacher_ms']:.3g} ms at best"
        told += f", speed-up x{predicted['speedup']:.2f}" if "speedup" in predicted else ""
        click.echo(f"predicted on {card} by its data sheet, not measured: {told}")


@click.command()
@click.argument("model")
@click.option("--plan", "rule_or_file", metavar="RULE_OR_FILE", default="vdmini", show_default=True)
@CHANNELS
@click.option("-o", "--output", type=PATH, required=True, help="A folder that does not exist yet.")
@DEVICE
@DTYPE
@with_download()
def prune(
    model: str, rule_or_file: str, channels: str | None, output: Path, device: str | None, dtype: str | None
) -> None:
    """Prune MODEL by a rule or a plan file; the student inherits its weights and loads like any diffusers folder."""
    from vdmini.models.registry import block_graph
    from vdmini_bench.models.inspect import inspect_model
    from vdmini_bench.models.pruning import prune_into, read_channel_rule
    from vdmini_bench.models.sampling import load_to_keep

    if output.exists():
        raise click.UsageError(f"{output} exists already: give another folder with -o")
    check_can_write(output)
    # Without weights first: a plan that does not fit is refused before gigabytes are read.
    inspection = inspect_model(model, rule_or_file)
    assert inspection.plan is not None
    before = inspection.teacher
    rule = None if channels is None else read_channel_rule(channels, before.family)
    student = prune_into(load_to_keep(model, dtype, device), inspection.plan, output, rule)
    after = block_graph(student, before.input)
    click.echo(f"{before.params / 1e6:,.3f} M to {after.params / 1e6:,.3f} M weights")
    click.echo(f"FLOPs x{after.flops / before.flops:.3f} at {before.input}")
    click.echo(f"wrote {output}, its denoiser in {dtype_name(student)}")


@click.command()
@click.argument("model")
@click.option("-o", "--output", type=PATH, required=True, help="Where the clips go.")
@with_conditions(clips=8)
@with_download()
def sample(model: str, output: Path, conditions: Conditions) -> None:
    """Sample clips from MODEL, an .mp4 each; a repeated call goes on where the last one stopped."""
    from vdmini_bench.config.sampling import preset_name
    from vdmini_bench.models.sampling import sample_into

    check_can_write(output)
    study = conditions.study(model)
    name = None if conditions.preset is None else preset_name(conditions.preset, study.settings)
    made = sample_into(study.model, study.requests, study.settings, output, study.batch_size, preset=name)
    click.echo(f"{len(study.requests)} clips in {output}, {made} of them made now")


@click.command()
@click.argument("model")
@click.option("--shard", default="1/1", show_default=True, help="2/4 measures the second of four parts.")
@click.option("-o", "--output", type=PATH, required=True, help="Where rows, table and plot go.")
@with_conditions(clips=16, fewest=2)
@JSON
@with_download()
def importance(model: str, shard: str, output: Path, conditions: Conditions, as_json: bool) -> None:
    """Take out each block and unit of MODEL in turn and measure what clips lose: their content, and their motion."""
    from vdmini_bench.studies.importance import measure_importance, parse_shard, write_importance
    from vdmini_bench.studies.plots import plot_importance

    check_can_write(output)
    part = parse_shard(shard)
    rows = measure_importance(conditions.study(model, scored=True), output, part)
    correlations = write_importance(output, rows)
    plot_importance(rows, correlations, output / "importance.png")
    if as_json:
        # A correlation with what never changes is no number, which JSON cannot say.
        values = {
            kind: {name: None if math.isnan(found.value) else asdict(found) for name, found in measures.items()}
            for kind, measures in correlations.items()
        }
        click.echo(json.dumps({"correlations_with_depth": values, "rows": len(rows), "output": str(output)}))
        return
    for kind, measures in correlations.items():
        for name, correlation in measures.items():
            click.echo(f"{kind}s, {name} against depth: rank correlation {correlation}")
    click.echo(f"{len(rows)} rows, table and picture: {output}")


@click.command()
@click.argument("model")
@click.option("--importance", "scores", type=PATH, required=True, help="What `importance` wrote.")
@click.option(
    "--by",
    type=click.Choice(["content", "motion", "flow", "fvd", "flow_magnitude", "frechet_motion"]),
    default="fvd",
    show_default=True,
)
@click.option("--flops", type=float, help="At most this share of the teacher's FLOPs.")
@click.option("--params", type=float, help="At most this share of its weights.")
@click.option("--time", "time_share", type=float, help="At most this share of its measured time.")
@click.option("-o", "--output", type=PATH, required=True, help="The plan's .json file.")
@JSON
@with_download(weights=False)
def plan(
    model: str, scores: Path, by: str, flops: float | None, params: float | None, time_share: float | None,
    output: Path, as_json: bool,
) -> None:  # fmt: skip
    """Find the units of MODEL whose loss matters least for a wanted cost, and write the plan that removes them."""
    from vdmini_bench.studies.importance_plan import plan_from_importance

    check_can_write(output)
    found = plan_from_importance(model, scores, by, flops, params, time_share)
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(found.to_json(), encoding="utf-8")
    if as_json:
        click.echo(json.dumps({"removed": found.removed, "output": str(output)}))
        return
    click.echo(f"removes {', '.join(found.removed) or 'nothing'}")
    click.echo(f"wrote {output}; see: vdmini-bench inspect {model} --plan {output}")
