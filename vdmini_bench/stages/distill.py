"""Distil the pruned student from its teacher by the ICMD loss."""

from __future__ import annotations

import csv
import shutil
from dataclasses import asdict, fields
from pathlib import Path

from vdmini import save_student
from vdmini.checkpoint import read_plan
from vdmini.data import EncodedClips
from vdmini.distill import DistillSettings, StepLosses, distill
from vdmini_bench.progress import progress
from vdmini_bench.stages.encode import ENCODED
from vdmini_bench.workbench import STUDENT, Workbench

CHECKPOINT = "checkpoint.pt"
LOSSES = "losses.csv"


def run_stage(bench: Workbench, subject: str, folder: Path) -> None:
    """Write the student's pipeline folder and the losses of every step; continues from its own checkpoint."""
    shutil.rmtree(folder / STUDENT, ignore_errors=True)
    specification = bench.suite.profile.distill
    settings = DistillSettings(**specification.model_dump(exclude={"task"}))
    pipeline = bench.load_pipeline("pruned")
    plan = read_plan(bench.model_source("pruned"))
    clips = EncodedClips.load(bench.folder("encode") / ENCODED)
    checkpoint = folder / CHECKPOINT
    dtype = pipeline.unet.dtype
    # Weights train in float32: steps of 1e-5 vanish in bfloat16. `mixed_precision` is what makes it fast.
    with progress("distil", settings.steps) as advance:
        distilled = distill(
            bench.load_pipeline("teacher").unet.float(),
            pipeline.unet.float(),
            plan,
            clips,
            settings,
            checkpoint,
            on_step=lambda losses: advance(),
        )
    with (folder / LOSSES).open("w", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(StepLosses)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(losses) for losses in distilled.losses)
    pipeline.unet = distilled.student.to(dtype)
    provenance = {"teacher_sha256": bench.teacher_digest, "distill": asdict(settings), "clips": len(clips)}
    save_student(folder / STUDENT, pipeline, plan, provenance)
    checkpoint.unlink(missing_ok=True)
