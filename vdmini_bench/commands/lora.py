"""Commands on adapters (LoRA)."""

from __future__ import annotations

import json
from pathlib import Path

import click

from vdmini_bench.commands.options import JSON, PATH
from vdmini_bench.errors import SuiteError, few
from vdmini_bench.system.files import check_can_write
from vdmini_bench.system.progress import quiet_libraries


@click.group()
def lora() -> None:
    """Use adapters (LoRA) of a teacher with its students."""


@lora.command("map")
@click.argument("file", type=click.Path(exists=True, dir_okay=False))
@click.option("--plan", metavar="STUDENT_OR_PLAN", required=True, help="A student's folder, a plan's file or a rule.")
@click.option("--teacher", metavar="MODEL", help="Whose LoRA it is; what STUDENT was pruned from if not given.")
@click.option("-o", "--output", type=PATH, required=True, help="The student's .safetensors file.")
@JSON
def map_command(file: str, plan: str, teacher: str | None, output: Path, as_json: bool) -> None:
    """Rename the layers in FILE, a LoRA of a teacher, for its student, and leave out those of removed blocks."""
    from vdmini.checkpoint import PROVENANCE_FILE
    from vdmini.lora import lora_loader, map_lora_file
    from vdmini.models.folders import read_json
    from vdmini.models.hub import source_folder
    from vdmini.models.loading import load_model
    from vdmini_bench.models.inspect import read_or_make_plan

    quiet_libraries()
    check_can_write(output)
    origin = Path(plan) / PROVENANCE_FILE
    source = teacher or (read_json(origin).get("teacher") if origin.is_file() else None)
    if source is None:
        raise click.UsageError(f"{plan} does not say what it was pruned from: name the model with --teacher")
    loader = lora_loader(source_folder(source))
    if loader is None:
        raise SuiteError(f"{source}: diffusers has no loader of LoRA for this pipeline, so there is nothing to map")
    model = load_model(source, device="meta")
    found = map_lora_file(file, loader, model.denoiser, read_or_make_plan(plan, model), output)
    if as_json:
        counted = {"mapped": len(found.weights), "removed": found.removed, "unread": found.unread}
        click.echo(json.dumps({**counted, "output": str(output)}))
        return
    click.echo(f"{len(found.weights)} keys mapped")
    for block, keys in found.removed.items():
        click.echo(f"{len(keys)} left out with {block}")
    if found.unread:
        click.echo(f"{len(found.unread)} left out that diffusers does not read: {few(found.unread)}")
    click.echo(f"wrote {output}")
