"""Prune the teacher by its plan, and its channels where there is a rule for them."""

from __future__ import annotations

import shutil
from pathlib import Path

from vdmini import save_student
from vdmini.models.registry import replace_denoiser
from vdmini_bench.distill.trainer import STUDENT
from vdmini_bench.models.source import pipeline_of
from vdmini_bench.suites.context import RunContext


def run_stage(context: RunContext, subject: str, folder: Path) -> None:
    """Write the pruned student's pipeline folder, which inherits the teacher's weights."""
    shutil.rmtree(folder / STUDENT, ignore_errors=True)
    recipe = context.recipe
    teacher = recipe.load(recipe.teacher)
    pipeline, plan = pipeline_of(teacher), recipe.pruning.plan_of(teacher)
    replace_denoiser(pipeline, recipe.pruning.apply(teacher, plan))
    provenance = {"teacher_sha256": recipe.teacher_sha256, "channels": recipe.pruning.channels}
    save_student(folder / STUDENT, pipeline, plan, provenance)
