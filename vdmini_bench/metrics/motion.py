"""How two clips that pair frame by frame differ in motion: where things move, how far, and how much a clip flickers.

All numbers are of one pair of clips, such as a teacher's and a student's from one seed; their mean over pairs, with its
interval, says what a student lost. Distances are 0 or more and symmetric, differences change sign when the clips change
places.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from vdmini_bench.metrics.flow import FLOW_VERSION, fields_to_magnitudes

MOTION_PAIR_VERSION = f"motion-pairs-1-{FLOW_VERSION}"
# VBench's threshold on the fastest 5 % of pixels, in pixels a frame at 256 pixels of the shorter side.
DYNAMIC_SPEED, DYNAMIC_SIDE, DYNAMIC_SHARE = 6.0, 256.0, 0.25

Fields = NDArray[np.float32]


def magnitude_distance(fields: Fields, other: Fields) -> float:
    """How far apart two clips' amounts of motion are, wherever it is and in whatever direction, in pixels a frame.

    The Wasserstein-1 distance between the flow magnitudes of the pixels of each pair of frames, averaged over these;
    never above the end-point distance. Both T-1 H W 2 float32, as `flow.flow_fields` gives.

    Raises:
        ValueError: unlike shapes.
    """
    _check_shapes(fields, other)
    first, second = (np.sort(np.hypot(flow[..., 0], flow[..., 1]).reshape(len(flow), -1)) for flow in (fields, other))
    return float(np.abs(first.astype(np.float64) - second).mean())


def speed_difference(fields: Fields, other: Fields) -> float:
    """How much faster the fastest 5 % of pixels move in `other`, in pixels a frame; both T-1 H W 2 float32.

    Raises:
        ValueError: unlike shapes.
    """
    _check_shapes(fields, other)
    first, second = (fields_to_magnitudes(flow)[:, 1].mean() for flow in (fields, other))
    return float(second - first)


def dynamic_degree(fields: Fields) -> float:
    """Whether a clip moves, as VBench decides it: 1.0 or 0.0; `fields` T-1 H W 2 float32.

    It does when the fastest 5 % of pixels exceed 6 pixels a frame, at 256 pixels of the shorter side, in a quarter of
    the pairs of frames. VBench takes RAFT's flow at about 8 frames a second; here it is DIS's between neighbours.
    """
    threshold = DYNAMIC_SPEED * min(fields.shape[1:3]) / DYNAMIC_SIDE
    fast = int((fields_to_magnitudes(fields)[:, 1] > threshold).sum())
    # VBench counts the frames of a clip, one more than there are pairs.
    return float(fast >= round(DYNAMIC_SHARE * (len(fields) + 1)))


def flicker(clip: NDArray[np.uint8]) -> float:
    """Mean absolute change of a pixel from frame to frame, T H W C uint8 to [0, 1]: 1 - VBench's temporal_flickering.

    Raises:
        ValueError: another layout or dtype, or fewer than 2 frames.
    """
    if clip.ndim != 4 or clip.dtype != np.uint8 or len(clip) < 2:
        raise ValueError(f"the clip is {clip.dtype} of shape {clip.shape}: it must be uint8 T H W C, T >= 2")
    return float(np.abs(np.diff(clip.astype(np.int16), axis=0)).mean(dtype=np.float64) / 255)


def _check_shapes(fields: NDArray[Any], other: NDArray[Any]) -> None:
    if fields.shape != other.shape:
        raise ValueError(f"flow fields of shapes {fields.shape} and {other.shape} do not pair")
