"""Merge a LoRA into the teacher where there is one, prune its blocks by a plan, and its channels by a rule."""

from __future__ import annotations

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

from diffusers import DiffusionPipeline

from vdmini import save_student
from vdmini.checkpoint import PLAN_FILE, read_plan
from vdmini.distill.task_loss import task_loss
from vdmini.latents import LatentCache
from vdmini.lora import map_lora_file, merge_lora
from vdmini.models.loading import load_model
from vdmini.models.registry import replace_denoiser
from vdmini_bench.distill.recipe import Recipe
from vdmini_bench.distill.trainer import task_of
from vdmini_bench.models.source import pipeline_of
from vdmini_bench.results.store import STUDENT
from vdmini_bench.runs.stages.encode import LATENTS
from vdmini_bench.suites.context import RunContext


def run_stage(context: RunContext, subject: str, folder: Path) -> None:
    """Write the pruned student's pipeline folder, which inherits the teacher's weights."""
    shutil.rmtree(folder / STUDENT, ignore_errors=True)
    recipe = context.recipe(subject)
    assert recipe.pruning is not None
    teacher = recipe.load(recipe.taught_by[0])
    pipeline = pipeline_of(teacher)
    if recipe.lora is not None:
        _merge(recipe, recipe.lora, pipeline)
    plan, loss, origin = recipe.pruning.plan_of(teacher), None, recipe.origin(teacher)
    if recipe.pruning.needs_data:
        latents = context.input_folder(f"prune {subject}".strip(), "encode") / LATENTS
        task = task_of(recipe.distill, teacher.denoiser)
        loss = task_loss(teacher.denoiser, LatentCache.open(latents), task)
    for expert in teacher.experts:
        replace_denoiser(pipeline, recipe.pruning.apply(expert.denoiser, plan, loss), expert.name)
    save_student(folder / STUDENT, pipeline, plan, origin)


def _merge(recipe: Recipe, file: str, pipeline: DiffusionPipeline) -> None:
    """Merge a LoRA of the teacher, renamed where the recipe goes on from a student of it."""
    if recipe.parent is None or not (Path(recipe.parent[0]) / PLAN_FILE).is_file():
        merge_lora(pipeline, file)
        return
    teacher = load_model(recipe.teacher, device="meta").denoiser
    with TemporaryDirectory() as folder:
        mapped = Path(folder) / "mapped.safetensors"
        map_lora_file(file, type(pipeline), teacher, read_plan(recipe.parent[0]), mapped)
        merge_lora(pipeline, str(mapped))
