"""The Frechet motion distance: how far two sets of clips are in the way they move, whatever they show.

The Frechet video distance hardly notices that clips move at half their speed. Here a clip is summed up by eleven
numbers of its optical flow, and sets of clips by the mean and covariance of these. Every number is a logarithm or a
ratio of order one, so that none needs a scale fitted to some reference, and eleven need few clips for a covariance.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from vdmini_bench.metrics.flow import FLOW_VERSION, flow_fields

MOTION_VERSION = f"motion-statistics-1-{FLOW_VERSION}"
# Flow below this many pixels a frame is no motion: about what DIS errs by.
FLOW_FLOOR = 0.1
QUANTILES = (0.5, 0.9, 0.99)
STATISTICS = (
    "median_speed", "fast_speed", "top_speed", "unevenness", "persistence_1", "persistence_2", "direction_x",
    "direction_y", "divergence", "rotation", "acceleration",
)  # fmt: skip
FEWEST_FRAMES = 4

FloatArray = NDArray[np.float64]


def motion_statistics(clip: NDArray[np.uint8]) -> FloatArray:
    """Sum up how a clip T H W C uint8 RGB moves: 11 float64, in the order of `STATISTICS`; see `fields_to_statistics`.

    Raises:
        ValueError: another layout or dtype, fewer than 4 frames, or frames below 12 pixels.
    """
    return fields_to_statistics(flow_fields(clip))


def fields_to_statistics(fields: NDArray[Any]) -> FloatArray:
    """Sum up the flow fields T-1 H W 2 of a clip, in pixels per frame.

    Three quantiles of the speed (how much moves how far), the spread of the mean speed over time (stutter, a freeze),
    the correlation of the flow with that of one and two frames on (order), the mean direction over the root mean square
    (-1 to 1 each), the root mean squares of divergence (growth) and rotation (spin, noise), and the mean change of the
    flow from frame to frame (jitter). Speeds, derivatives and changes are ln(1 + x / 0.1 px); a clip that stands still
    is all 0.

    Raises:
        ValueError: another layout, or of fewer than 4 frames.
    """
    if fields.ndim != 4 or fields.shape[3] != 2 or len(fields) < FEWEST_FRAMES - 1:
        raise ValueError(
            f"flow fields of shape {fields.shape}: they must be T-1 H W 2, of clips of {FEWEST_FRAMES} or more frames"
        )
    flow = fields.astype(np.float64)
    speed = np.hypot(flow[..., 0], flow[..., 1])
    energy = float((flow**2).sum(axis=-1).mean())
    direction = flow.mean(axis=(0, 1, 2)) / np.sqrt(energy + FLOW_FLOOR**2)
    across_y, across_x = (np.asarray(np.gradient(flow, axis=axis)) for axis in (1, 2))
    divergence = across_x[..., 0] + across_y[..., 1]
    rotation = across_x[..., 1] - across_y[..., 0]
    change = np.diff(flow, axis=0)
    return np.array(
        [
            *_logarithm(np.quantile(speed, QUANTILES)),
            _logarithm(speed.mean(axis=(1, 2))).std(),
            _persistence(flow, 1),
            _persistence(flow, 2),
            *direction,
            _logarithm(np.sqrt((divergence**2).mean())),
            _logarithm(np.sqrt((rotation**2).mean())),
            _logarithm(np.hypot(change[..., 0], change[..., 1]).mean()),
        ]
    )


def _logarithm(speed: Any) -> Any:
    return np.log1p(speed / FLOW_FLOOR)


def _persistence(flow: FloatArray, frames: int) -> float:
    """How much of the flow is still there some frames on: 1 when all is, 0 when none, below when it turns back."""
    before, after = flow[:-frames], flow[frames:]
    energy = ((before**2).sum(axis=-1).mean() + (after**2).sum(axis=-1).mean()) / 2
    return float((before * after).sum(axis=-1).mean() / (energy + FLOW_FLOOR**2))
