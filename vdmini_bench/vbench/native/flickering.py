"""Temporal flickering as VBench defines it (arXiv 2311.17982, section 3.1): no network, so no weights to get."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def temporal_flickering(frames: NDArray[np.uint8]) -> float:
    """One minus the mean absolute difference of consecutive frames T H W C uint8, on a scale from 0 to 1.

    The official function sums in float32 and agrees to 1e-7. Its protocol scores videos without motion, which this does
    not look for. Raises ValueError for other numbers than uint8 and for fewer than two frames.
    """
    if frames.dtype != np.uint8 or frames.ndim != 4 or len(frames) < 2:
        raise ValueError(f"frames are {frames.dtype} of shape {frames.shape}: give two or more, T H W C uint8")
    # Unsigned: the larger minus the smaller neither wraps nor needs a wider type.
    differences = np.maximum(frames[1:], frames[:-1]) - np.minimum(frames[1:], frames[:-1])
    return 1.0 - float(differences.mean(dtype=np.float64)) / 255.0
