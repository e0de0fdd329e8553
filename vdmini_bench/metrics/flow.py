"""Motion by dense optical flow, without weights: how far things move between neighbouring frames.

The Frechet video distance is a weak judge of motion: it weighs how frames look far above how they follow each other (Ge
et al. 2024, "On the Content Bias in Frechet Video Distance"). Here a still clip has flow 0, so still clips lie as far
from real footage as that footage moves.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

FLOW_VERSION = "dis-medium-1"
TOP_SHARE = 0.05
# OpenCV's DIS refuses frames whose sides are both shorter.
SMALLEST_SIDE = 12

FloatArray = NDArray[np.float64]


def flow_magnitudes(clip: NDArray[np.uint8]) -> FloatArray:
    """Measure motion between neighbouring frames by DIS optical flow (Kroeger et al. 2016), preset medium, on grey.

    Args:
        clip: T H W C uint8 RGB.

    Returns:
        T-1 x 2 float64, pixels per frame at the clip's own size: the mean flow magnitude, and that of the 5 % of pixels
        that move most, which a still background around a small moving subject does not dilute.

    Raises:
        ValueError: another layout or dtype, fewer than 2 frames, or frames below 12 pixels.
    """
    return fields_to_magnitudes(flow_fields(clip))


def fields_to_magnitudes(fields: NDArray[np.float32]) -> FloatArray:
    """What `flow_magnitudes` gives, from the flow fields T-1 H W 2 of a clip."""
    return np.stack([_mean_and_top(flow) for flow in fields])


def flow_distance(generated: FloatArray, reference: FloatArray) -> float:
    """Wasserstein-1 distance between the top-5 % flow magnitudes of two sets of clips, in pixels per frame; 0 is best.

    Args:
        generated: P x 2 float64, `flow_magnitudes` of all generated clips, concatenated.
        reference: Q x 2 float64, the same of real clips of the same size and frame rate.

    Raises:
        ValueError: another shape, no rows, or a value that is not finite.
    """
    from scipy.stats import wasserstein_distance

    return float(wasserstein_distance(_top(generated, "generated"), _top(reference, "reference")))


def flow_field_distance(clip: NDArray[np.uint8], other: NDArray[np.uint8]) -> float:
    """Mean end-point error between the flow fields of two clips that pair frame by frame, in pixels per frame.

    Both T H W C uint8 RGB of one size; raises ValueError as `flow_magnitudes` does.
    """
    if clip.shape != other.shape:
        raise ValueError(f"clips of shapes {clip.shape} and {other.shape} do not pair")
    return end_point_distance(flow_fields(clip), flow_fields(other))


def end_point_distance(fields: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """Mean end-point error between two clips' flow fields, both T-1 H W 2, in pixels per frame."""
    return float(np.mean([np.hypot(*np.moveaxis(a - b, -1, 0)).mean() for a, b in zip(fields, other, strict=True)]))


def flow_fields(clip: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The flow from each frame of a clip T H W C uint8 RGB to the next: T-1 H W 2 float32 (right, down) in pixels.

    Raises:
        ValueError: another layout or dtype, fewer than 2 frames, or frames below 12 pixels.
    """
    if clip.ndim != 4 or clip.shape[3] != 3 or clip.dtype != np.uint8:
        raise ValueError(f"the clip is {clip.dtype} of shape {clip.shape}: it must be uint8 T H W 3")
    if len(clip) < 2:
        raise ValueError(f"the clip has {len(clip)} frame(s): motion needs at least 2")
    if min(clip.shape[1:3]) < SMALLEST_SIDE:
        raise ValueError(f"frames of {clip.shape[1]}x{clip.shape[2]}: both sides must be at least {SMALLEST_SIDE}")
    import cv2

    estimator = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    # On the calling thread, and then the process has its setting back: callers parallelise over clips.
    threads = cv2.getNumThreads()
    cv2.setNumThreads(0)
    try:
        grey = [cv2.cvtColor(np.ascontiguousarray(frame), cv2.COLOR_RGB2GRAY) for frame in clip]
        # Every pair starts from no motion: a field used again would be the guess for the next pair.
        still = np.zeros((*clip.shape[1:3], 2), dtype=np.float32)
        return np.stack([estimator.calc(before, after, still.copy()) for before, after in pairwise(grey)])
    finally:
        cv2.setNumThreads(threads)


def _top(magnitudes: FloatArray, name: str) -> FloatArray:
    if magnitudes.ndim != 2 or magnitudes.shape[1] != 2 or not len(magnitudes):
        raise ValueError(f"{name} has shape {magnitudes.shape}: it must be P x 2, from flow_magnitudes, with P > 0")
    if not np.isfinite(magnitudes).all():
        raise ValueError(f"{name} holds NaN or infinity: measure its clips again")
    return magnitudes[:, 1]


def _mean_and_top(flow: NDArray[Any]) -> FloatArray:
    # Sorted as float32, which is faster by far and the same order.
    magnitude = np.sort(np.hypot(flow[..., 0], flow[..., 1]), axis=None).astype(np.float64)
    count = max(1, round(TOP_SHARE * magnitude.size))
    return np.array([magnitude.mean(), magnitude[-count:].mean()])
