"""A few clips of a run for people to look at: the same conditions from every model."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vdmini_bench.clips import resize_clip
from vdmini_bench.datasets.video import read_frames
from vdmini_bench.jobs import GENERATED
from vdmini_bench.stages.sample import clip_path
from vdmini_bench.workbench import Workbench

EXAMPLES = 6


def example_clips(bench: Workbench) -> dict[str, list[NDArray[np.uint8]]]:
    """The first clips T H W C uint8 of the real set and of each generated model, at the sampled size."""
    settings = bench.sample_settings
    shown = range(min(EXAMPLES, len(bench.clips.condition)))
    real = [
        resize_clip(
            read_frames(bench.clips.condition[seed].path, settings.frames, settings.frames_per_second),
            settings.width,
            settings.height,
        )
        for seed in shown
    ]
    clips = {"real": real}
    for model in GENERATED:
        folder = bench.folder(f"sample {model}")
        clips[model] = [read_frames(clip_path(folder, f"{seed:05d}"), settings.frames) for seed in shown]
    return clips
