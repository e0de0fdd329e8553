"""Encode the training clips once into the latents that distillation reads."""

from __future__ import annotations

from pathlib import Path

from vdmini.latents import UnreadableClipsError, encode_to_cache
from vdmini_bench.data.requests import warn_of_cut_prompts
from vdmini_bench.errors import IncompleteError, UnreadableVideoError
from vdmini_bench.models.source import pipeline_of
from vdmini_bench.suites.context import RunContext
from vdmini_bench.system.progress import progress

LATENTS, DRAWN_CLIPS = "latents", "clips"


def run_stage(context: RunContext, subject: str, folder: Path) -> None:
    """Write the latent cache of the training clips, and the clips themselves where the teacher draws them.

    What an interrupted attempt encoded is kept.

    Raises:
        IncompleteError: clips could not be read; the others are encoded.
    """
    recipe = context.recipe(subject)
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
