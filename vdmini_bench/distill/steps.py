"""The three steps of a distillation: encode, prune, train."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch

from vdmini import save_student
from vdmini.checkpoint import read_plan
from vdmini.latent_index import LatentIndex
from vdmini.latents import LatentCache, UnreadableClipsError, encode_to_cache
from vdmini.models.registry import replace_denoiser
from vdmini_bench.data.requests import warn_of_cut_prompts
from vdmini_bench.distill.recipe import Recipe
from vdmini_bench.distill.trainer import STUDENT, distill_into
from vdmini_bench.errors import IncompleteError, UnreadableVideoError, few
from vdmini_bench.models.source import pipeline_of
from vdmini_bench.system.launch import Share, process_device
from vdmini_bench.system.progress import progress, say

CPU = torch.device("cpu")
LATENTS, DRAWN_CLIPS = "latents", "clips"


def distill_student(share: Share, recipe: Recipe, encoded: Path, pruned: Path, folder: Path) -> None:
    """Distil from what `encode_clips` and `prune_teacher` left; all processes of a launch call this together."""
    # Loaded on the CPU, whence only the denoisers go to the device: no memory for text encoders that nobody runs.
    teacher = recipe.load(recipe.teacher, CPU).denoiser
    if recipe.distill.mixed_precision == "no":
        teacher = teacher.float()
    clips = LatentCache.open(encoded / LATENTS, verify=share.is_main)
    skipped = LatentIndex.read(encoded / LATENTS).skipped
    if skipped and share.is_main:
        named = few([f"{name} ({reason})" for name, reason in skipped.items()])
        say(f"warning: {len(skipped)} clips could not be read and are left out of {len(clips) + len(skipped)}: {named}")
    provenance = {"teacher_sha256": recipe.teacher_sha256, "distill": recipe.distill.model_dump(), "clips": len(clips)}
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


def encode_clips(recipe: Recipe, folder: Path) -> None:
    """Write the latent cache of a recipe's clips, and the clips themselves where the teacher draws them.

    Raises:
        IncompleteError: clips could not be read; the others are encoded.
    """
    model = recipe.load(recipe.teacher)
    pipeline = pipeline_of(model)
    warn_of_cut_prompts(pipeline, recipe.prompts)
    source = recipe.clips(model, folder / DRAWN_CLIPS)
    with progress("encode training clips", len(source.names)) as advance:
        try:
            encode_to_cache(
                pipeline,
                source,
                folder / LATENTS,
                recipe.encoding,
                identity=recipe.teacher_sha256,
                clips_per_shard=recipe.clips_per_shard,
                skip_unreadable=recipe.skip_unreadable,
                on_clip=advance,
            )
        except UnreadableClipsError as error:
            problems = [UnreadableVideoError(Path(problem.name), problem.reason) for problem in error.problems]
            raise IncompleteError(problems) from error


def prune_teacher(recipe: Recipe, folder: Path) -> None:
    """Write the pruned student's pipeline folder, which inherits the teacher's weights."""
    shutil.rmtree(folder / STUDENT, ignore_errors=True)
    teacher = recipe.load(recipe.teacher)
    pipeline, plan = pipeline_of(teacher), recipe.pruning.plan_of(teacher)
    replace_denoiser(pipeline, recipe.pruning.apply(teacher))
    provenance = {"teacher_sha256": recipe.teacher_sha256, "channels": recipe.pruning.channels}
    save_student(folder / STUDENT, pipeline, plan, provenance)
