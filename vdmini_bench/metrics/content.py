"""How two clips that pair frame by frame differ in content: what their frames show, not how they follow each other."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def content_distance(features: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """Mean over frames of the distance between the features of frames that pair; 0 for equal clips, symmetric.

    Features are means over the frame, so that something elsewhere in it costs little.

    Args:
        features: T x D float32 of one clip, as `frame_features.clip_to_frame_features` gives.
        other: the same of the clip it pairs with.

    Raises:
        ValueError: unlike shapes.
    """
    if features.shape != other.shape or features.ndim != 2:
        raise ValueError(f"features of shapes {features.shape} and {other.shape} do not pair: both must be T x D")
    return float(np.linalg.norm(features.astype(np.float64) - other, axis=1).mean())
