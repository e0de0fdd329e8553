"""Prune the teacher by the profile's plan."""

from __future__ import annotations

import shutil
from pathlib import Path

from vdmini import PruningPlan, apply_plan, make_plan, save_student
from vdmini_bench.workbench import STUDENT, Workbench


def run_stage(bench: Workbench, subject: str, folder: Path) -> None:
    """Write the pruned student's pipeline folder, which inherits the teacher's weights."""
    shutil.rmtree(folder / STUDENT, ignore_errors=True)
    pipeline = bench.load_pipeline("teacher")
    written_out = bench.plan.startswith("{")
    plan = PruningPlan.from_json(bench.plan) if written_out else make_plan(pipeline.unet, bench.plan)
    pipeline.unet = apply_plan(pipeline.unet, plan)
    save_student(folder / STUDENT, pipeline, plan, {"teacher_sha256": bench.teacher_digest})
