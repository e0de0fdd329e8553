"""Cut down the VAE's decoder, and fine-tune it on the training clips where that is asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vdmini_bench.distill.decoder import make_decoder
from vdmini_bench.models.source import pipeline_of
from vdmini_bench.runs.stages.encode import DRAWN_CLIPS
from vdmini_bench.suites.context import SuiteContext


def run_stage(context: SuiteContext, subject: str, folder: Path) -> None:
    """Write the VAE with its smaller decoder; continues from its own checkpoint."""
    recipe, specification = context.recipe(subject), context.graph.models[subject].spec.decoder
    assert specification is not None
    teacher = recipe.load(recipe.teacher)
    clips = recipe.clips(teacher, folder / DRAWN_CLIPS)
    pipeline: Any = pipeline_of(teacher)
    make_decoder(folder, pipeline.vae, clips, specification)
