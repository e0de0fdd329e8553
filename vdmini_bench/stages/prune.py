"""Prune the teacher by the profile's plan."""

from __future__ import annotations

import shutil
from pathlib import Path

from torch import nn

from vdmini import PruningPlan, apply_plan, make_plan, save_student
from vdmini_bench.workbench import STUDENT, Workbench


def run_stage(bench: Workbench, subject: str, folder: Path) -> None:
    """Write the pruned student's pipeline folder, which inherits the teacher's weights."""
    shutil.rmtree(folder / STUDENT, ignore_errors=True)
    pipeline = bench.load_pipeline("teacher")
    plan = read_or_make_plan(bench.suite.profile.plan, pipeline.unet)
    pipeline.unet = apply_plan(pipeline.unet, plan)
    save_student(folder / STUDENT, pipeline, plan, {"teacher_sha256": bench.teacher_digest})


def read_or_make_plan(rule_or_file: str, denoiser: nn.Module) -> PruningPlan:
    """The plan in a `.json` file, or the one a named rule makes for `denoiser`."""
    if rule_or_file.endswith(".json"):
        return PruningPlan.from_json(Path(rule_or_file).read_text(encoding="utf-8"))
    return make_plan(denoiser, rule=rule_or_file)
