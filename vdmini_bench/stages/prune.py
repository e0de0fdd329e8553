"""Prune the teacher by the profile's plan, and its channels where the profile says how."""

from __future__ import annotations

import shutil
from pathlib import Path

from vdmini import PruningPlan, make_plan, save_student
from vdmini_bench.generation import prune_denoiser, read_channel_rule
from vdmini_bench.prepare import split_pruning_text
from vdmini_bench.workbench import STUDENT, Workbench


def run_stage(bench: Workbench, subject: str, folder: Path) -> None:
    """Write the pruned student's pipeline folder, which inherits the teacher's weights."""
    shutil.rmtree(folder / STUDENT, ignore_errors=True)
    pipeline = bench.load_pipeline("teacher")
    rule_or_plan, channels = split_pruning_text(bench.plan)
    written_out = rule_or_plan.startswith("{")
    plan = PruningPlan.from_json(rule_or_plan) if written_out else make_plan(pipeline.unet, rule_or_plan)
    narrowing = None if channels is None else read_channel_rule(channels, "svd")
    pipeline.unet = prune_denoiser(pipeline.unet, plan, narrowing)
    save_student(folder / STUDENT, pipeline, plan, {"teacher_sha256": bench.teacher_digest, "channels": channels})
