"""Distil the pruned student from its teacher by the ICMD loss."""

from __future__ import annotations

from pathlib import Path

import torch

from vdmini.checkpoint import read_plan
from vdmini.latent_index import LatentIndex
from vdmini.latents import LatentCache
from vdmini_bench.distillation import distill_into
from vdmini_bench.errors import few
from vdmini_bench.processes import is_main, process_device
from vdmini_bench.progress import say
from vdmini_bench.recipe import Recipe
from vdmini_bench.sharing import Share, share_out
from vdmini_bench.stages.encode import LATENTS
from vdmini_bench.workbench import STUDENT, CommonBench

CPU = torch.device("cpu")


def run_stage(bench: CommonBench, subject: str, folder: Path) -> None:
    """Write the student's pipeline folder and the losses of every step; continues from its own checkpoint."""
    share_out(_distill_together, bench, folder)


def _distill_together(share: Share, bench: CommonBench, folder: Path) -> None:
    distill_student(bench.recipe, bench.folder("encode"), bench.folder("prune"), folder)


def distill_student(recipe: Recipe, encoded: Path, pruned: Path, folder: Path) -> None:
    """Distil from what `encode_clips` and `prune_teacher` left; all processes of a launch call this together."""
    # Loaded on the CPU, whence only the denoisers go to the device: no memory for text encoders that nobody runs.
    teacher = recipe.load(recipe.teacher, CPU).denoiser
    if recipe.distill.mixed_precision == "no":
        teacher = teacher.float()
    clips = LatentCache.open(encoded / LATENTS, verify=is_main())
    skipped = LatentIndex.read(encoded / LATENTS).skipped
    if skipped and is_main():
        named = few([f"{name} ({reason})" for name, reason in skipped.items()])
        say(f"warning: {len(skipped)} clips could not be read and are left out of {len(clips) + len(skipped)}: {named}")
    provenance = {
        "teacher_sha256": recipe.teacher_sha256,
        "distill": recipe.distill.model_dump(),
        "clips": len(clips),
    }
    distill_into(
        folder,
        teacher.to(process_device()),
        recipe.load(str(pruned / STUDENT), CPU),
        read_plan(pruned / STUDENT),
        clips,
        recipe.distill,
        provenance,
        recipe.preview,
    )
