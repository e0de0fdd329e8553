"""Encode the training clips once into the latents that distillation reads."""

from __future__ import annotations

from pathlib import Path

from vdmini.data import encode_clips
from vdmini_bench.clips import ClipReader
from vdmini_bench.progress import progress
from vdmini_bench.workbench import Workbench

ENCODED = "encoded.safetensors"


def run_stage(bench: Workbench, subject: str, folder: Path) -> None:
    """Write `encoded.safetensors` from the chosen training clips."""
    settings = bench.sample_settings
    pipeline = bench.load_pipeline("teacher")
    paths = [video.path for video in bench.clips.train]
    with progress("encode training clips", len(paths)) as advance:
        reader = ClipReader(
            paths, settings.frames, settings.frames_per_second, settings.width, settings.height, on_clip=advance
        )
        encoded = encode_clips(
            pipeline,
            reader,
            frames_per_second=settings.frames_per_second,
            motion_bucket=settings.motion_bucket,
            noise_strength=settings.noise_strength,
        )
    reader.check()
    encoded.save(folder / ENCODED)
