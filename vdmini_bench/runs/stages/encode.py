"""Encode the training clips once into the latents that distillation reads."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from vdmini.latents import ClipSource, UnreadableClipsError, encode_to_cache
from vdmini.models.registry import VideoModel
from vdmini_bench.data.requests import warn_of_cut_prompts
from vdmini_bench.errors import IncompleteError, UnreadableVideoError
from vdmini_bench.models.source import pipeline_of
from vdmini_bench.suites.context import RunContext
from vdmini_bench.system.launch import Share, is_launched, share_out

LATENTS, DRAWN_CLIPS = "latents", "clips"


@dataclass(frozen=True)
class Encoder:
    """What encodes a subject's clips; a process that it is sent to loads the teacher anew."""

    context: RunContext
    subject: str

    @cached_property
    def model(self) -> VideoModel:
        """The teacher, on this process's device."""
        recipe = self.context.recipe(self.subject)
        return recipe.load(recipe.teacher)

    def __reduce__(self) -> tuple[type[Encoder], tuple[RunContext, str]]:
        return Encoder, (self.context, self.subject)


def run_stage(context: RunContext, subject: str, folder: Path) -> None:
    """Write the latent cache of the training clips, and the clips themselves where the teacher draws them.

    What an interrupted attempt encoded is kept. The processes of a launch each encode a share; the clips are drawn by
    the main one.

    Raises:
        IncompleteError: clips could not be read; the others are encoded.
    """
    recipe, encoder = context.recipe(subject), Encoder(context, subject)
    warn_of_cut_prompts(pipeline_of(encoder.model), recipe.prompts)
    source = recipe.clips(encoder.model, folder / DRAWN_CLIPS)
    if is_launched():
        share_out(_encode, encoder, source, folder / LATENTS)
    try:
        _encode(Share(), encoder, source, folder / LATENTS)
    except UnreadableClipsError as error:
        problems = [UnreadableVideoError(Path(problem.name), problem.reason) for problem in error.problems]
        raise IncompleteError(problems) from error


def clips_of(share: Share, count: int, clips_per_shard: int) -> int:
    """How many of `count` clips a process encodes: whole files of them are dealt out, and the first gets the most."""
    return sum(min(clips_per_shard, count - start) for start in share.of(range(0, count, clips_per_shard)))


def _encode(share: Share, encoder: Encoder, source: ClipSource, latents: Path) -> None:
    recipe = encoder.context.recipe(encoder.subject)
    count = clips_of(share, len(source.names), recipe.clips_per_shard)
    with share.progress("encode training clips", count) as advance:
        encode_to_cache(
            pipeline_of(encoder.model),
            source,
            latents,
            recipe.encoding,
            identity=recipe.teacher_sha256,
            clips_per_shard=recipe.clips_per_shard,
            skip_unreadable=recipe.skip_unreadable,
            on_clip=advance,
            share=(share.index, share.count),
        )
