"""A few clips of a run for people to look at: the same conditions from every model."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vdmini_bench.clips import resize_clip
from vdmini_bench.datasets.video import read_frames
from vdmini_bench.jobs import GENERATED
from vdmini_bench.workbench import CommonBench

EXAMPLES = 6


def example_clips(bench: CommonBench) -> dict[str, list[NDArray[np.uint8]]]:
    """The first clips T H W C uint8 of the real set, where there is one, and of each model, at the sampled size."""
    settings = bench.sample_settings
    clips = {}
    for model, paths in bench.examples(EXAMPLES).items():
        # A generated clip is all there is: its frames are taken as they are.
        rate = None if model in GENERATED else bench.suite.profile.rate
        shown = [read_frames(path, settings.frames, rate) for path in paths]
        clips[model] = [resize_clip(clip, settings.width, settings.height) for clip in shown]
    return clips
