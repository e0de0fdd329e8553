"""Encode the training clips once into the latents that distillation reads."""

from __future__ import annotations

from pathlib import Path

from vdmini.latents import UnreadableClipsError, encode_to_cache
from vdmini_bench.clips import IncompleteError
from vdmini_bench.datasets.video import UnreadableVideoError
from vdmini_bench.progress import progress
from vdmini_bench.recipe import Recipe, pipeline_of
from vdmini_bench.requests import warn_of_cut_prompts
from vdmini_bench.workbench import CommonBench

LATENTS = "latents"
DRAWN_CLIPS = "clips"


def run_stage(bench: CommonBench, subject: str, folder: Path) -> None:
    """Write the latent cache of the chosen training clips; what an interrupted attempt encoded is kept."""
    encode_clips(bench.recipe, folder)


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
