"""How near a row's clips are to the baseline's of the same seeds and prompts: frame by frame, in content, in motion."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from vdmini_bench.errors import NotComparableError, NothingMeasuredError, SuiteError
from vdmini_bench.metrics.content import SPECTRUM_VERSION, spectrum_distance
from vdmini_bench.metrics.flow import SMALLEST_SIDE, flow_field_distance
from vdmini_bench.metrics.motion import MOTION_PAIR_VERSION
from vdmini_bench.results.score import Better, Score

# The largest value of a frame: uint8.
RANGE = 255.0
# What equal frames count, whose PSNR is infinite, and the most that any count; as code for caches of models does.
EQUAL_DB = 100.0
# By metric: its version, its unit, and which way is better.
MEASURES: dict[str, tuple[str, str, Better]] = {
    "psnr": ("torchmetrics-psnr-255-frames-1", "dB", "higher"),
    "ssim": ("torchmetrics-ssim-255-frames-1", "", "higher"),
    "content_distance": (SPECTRUM_VERSION, "", "lower"),
    "motion_distance": (MOTION_PAIR_VERSION, "px/frame", "lower"),
}

Clip = NDArray[np.uint8]


def check_pair(name: str, other_name: str, clip: Clip, other: Clip) -> None:
    """Refuse two clips T H W C that do not pair, or whose motion cannot be measured.

    Raises:
        NotComparableError: unlike sizes or lengths.
        SuiteError: fewer than 2 frames, or frames below 12 pixels.
    """
    if clip.shape != other.shape:
        sizes = " and ".join("{} frames of {}x{}".format(*each.shape[:3]) for each in (clip, other))
        raise NotComparableError(f"{name} and {other_name} do not pair: {sizes}; sample both with the same settings")
    if len(clip) < 2 or min(clip.shape[1:3]) < SMALLEST_SIDE:
        raise SuiteError(f"{name}: motion needs 2 or more frames and sides of {SMALLEST_SIDE} pixels or more")


def clip_fidelity(baseline: Clip, clip: Clip) -> dict[str, float]:
    """Every one of `MEASURES` of one pair of clips T H W C uint8 RGB of one shape; not symmetric in content.

    PSNR and SSIM (Wang et al. 2004, Gaussian window of 11 pixels, edges reflected) are torchmetrics' of a range of 255,
    in float64 and float32, each the mean over frames; a frame's PSNR is at most 100 dB, which is what equal frames
    have. The distances are `content.spectrum_distance`, as a share of the baseline's spectrum, and
    `flow.flow_field_distance`, in pixels a frame.

    Raises:
        ValueError: the clips do not pair, or are too short or too small.
    """
    import torch
    from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

    distances = {
        "content_distance": spectrum_distance(baseline, clip),
        "motion_distance": flow_field_distance(baseline, clip),
    }
    noise, structure = [], []
    # A frame at a time: the windows of a long clip at once would not fit.
    for frames in zip(baseline, clip, strict=True):
        target, frame = (torch.from_numpy(each).permute(2, 0, 1)[None].float() for each in frames)
        noise.append(min(EQUAL_DB, float(peak_signal_noise_ratio(frame.double(), target.double(), data_range=RANGE))))
        # In float64 its windows take fifty times as long.
        structure.append(float(structural_similarity_index_measure(frame, target, data_range=RANGE)))  # type: ignore[arg-type]
    return {"psnr": statistics.fmean(noise), "ssim": statistics.fmean(structure), **distances}


def fidelity_scores(model: str, protocol: str, pairs: Iterable[tuple[str, Clip, Clip]]) -> list[Score]:
    """Score a row's clips by the means over clips of `MEASURES`, whose blocks are the clips' values in this order.

    `pairs` gives each clip's name, the baseline's clip and the row's, both T H W C uint8 RGB, and is read one by one.

    Raises:
        NotComparableError: two clips of a name differ in size or length.
        SuiteError: a clip is too short or too small for motion.
        NothingMeasuredError: there is no pair.
    """
    values = []
    for name, baseline, clip in pairs:
        check_pair(f"clip {name} of the baseline", f"that of {model}", baseline, clip)
        values.append(clip_fidelity(baseline, clip))
    if not values:
        raise NothingMeasuredError(f"{model} has no clips to compare with the baseline's; sample both first")
    return [_score(model, protocol, metric, [each[metric] for each in values]) for metric in MEASURES]


def _score(model: str, protocol: str, metric: str, values: list[float]) -> Score:
    version, unit, better = MEASURES[metric]
    count = len(values)
    error = statistics.stdev(values) / math.sqrt(count) if count > 1 else None
    mean = statistics.fmean(values)
    return Score(model, metric, version, protocol, mean, unit, better, error, count, count, "ok", tuple(values))


def fidelity_notes(scores: Iterable[Score]) -> dict[str, str]:
    """Notes by metric for `record_of`: of clips that all equal the baseline's, whose PSNR would be infinite."""
    equal = f"equal to the baseline's clips: {EQUAL_DB:g} dB stands for an infinite PSNR"
    return {score.metric: equal for score in scores if score.metric == "psnr" and score.value == EQUAL_DB}
