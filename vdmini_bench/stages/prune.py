"""Prune the teacher by its plan, and its channels where there is a rule for them."""

from __future__ import annotations

import shutil
from pathlib import Path

from vdmini import PruningPlan, make_plan, save_student
from vdmini.models import VideoModel, replace_denoiser
from vdmini_bench.generation import prune_denoiser, read_channel_rule
from vdmini_bench.prepare import split_pruning_text
from vdmini_bench.recipe import Recipe, pipeline_of
from vdmini_bench.workbench import STUDENT, CommonBench


def run_stage(bench: CommonBench, subject: str, folder: Path) -> None:
    """Write the pruned student's pipeline folder, which inherits the teacher's weights."""
    prune_teacher(bench.recipe, folder)


def prune_teacher(recipe: Recipe, folder: Path) -> None:
    """Write the pruned student's pipeline folder, which inherits the teacher's weights."""
    shutil.rmtree(folder / STUDENT, ignore_errors=True)
    teacher = recipe.load(recipe.teacher)
    pipeline, plan = pipeline_of(teacher), plan_of(teacher, recipe.pruning)
    _, channels = split_pruning_text(recipe.pruning)
    rule = None if channels is None else read_channel_rule(channels, teacher.family)
    replace_denoiser(pipeline, prune_denoiser(teacher.denoiser, plan, rule))
    save_student(folder / STUDENT, pipeline, plan, {"teacher_sha256": recipe.teacher_sha256, "channels": channels})


def plan_of(teacher: VideoModel, pruning: str) -> PruningPlan:
    """The plan that a pruning's text says; raises PlanError where it does not fit the teacher."""
    rule_or_plan, _ = split_pruning_text(pruning)
    if rule_or_plan.startswith("{"):
        return PruningPlan.from_json(rule_or_plan)
    return make_plan(teacher, rule_or_plan)
