"""Distil the pruned student from its teacher by the ICMD loss."""

from __future__ import annotations

from pathlib import Path

import torch

from vdmini.checkpoint import read_plan
from vdmini.latent_index import LatentIndex
from vdmini.latents import LatentCache
from vdmini_bench.distill.trainer import distill_into
from vdmini_bench.errors import few
from vdmini_bench.results.store import STUDENT
from vdmini_bench.runs.stages.encode import LATENTS
from vdmini_bench.suites.context import RunContext
from vdmini_bench.system.launch import Share, share_out
from vdmini_bench.system.progress import say

CPU = torch.device("cpu")


def run_stage(context: RunContext, subject: str, folder: Path) -> None:
    """Write the student's pipeline folder and the losses of every step; continues from its own checkpoint."""
    share_out(_distill, context, subject, folder)


def _distill(share: Share, context: RunContext, subject: str, folder: Path) -> None:
    recipe, job = context.recipe(subject), f"distill {subject}".strip()
    latents, pruned = context.input_folder(job, "encode") / LATENTS, context.input_folder(job, "prune") / STUDENT
    # Loaded on the CPU, whence only the denoisers go to the device: no memory for text encoders that nobody runs.
    teacher = recipe.load(recipe.taught_by[0], CPU)
    clips, skipped = LatentCache.open(latents, verify=share.is_main), LatentIndex.read(latents).skipped
    if skipped and share.is_main:
        named = few([f"{name} ({reason})" for name, reason in skipped.items()])
        say(f"warning: {len(skipped)} clips could not be read and are left out of {len(clips) + len(skipped)}: {named}")
    student, plan = recipe.load(str(pruned), CPU), read_plan(pruned)
    distill_into(folder, recipe, teacher, student, plan, clips)
