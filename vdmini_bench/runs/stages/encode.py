"""Encode the training clips once into the latents that distillation reads."""

from __future__ import annotations

from pathlib import Path

from vdmini_bench.distill.steps import encode_clips
from vdmini_bench.suites.context import RunContext


def run_stage(context: RunContext, subject: str, folder: Path) -> None:
    """Write the latent cache of the chosen training clips; what an interrupted attempt encoded is kept."""
    encode_clips(context.recipe, folder)
