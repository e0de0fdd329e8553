"""How two clips that pair frame by frame differ in content: what their frames show, not how they follow each other."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

SPECTRUM_VERSION = "amplitude-spectrum-1"


class FrameFeatures(Protocol):
    """Gives T x D float32 features of a clip T H W C uint8 RGB, frame by frame; `version` names the numbers."""

    @property
    def version(self) -> str: ...

    def __call__(self, clip: NDArray[np.uint8]) -> NDArray[np.float32]: ...


def content_distance(features: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """Mean over frames of the distance between the features of frames that pair; 0 for equal clips, symmetric.

    Features should be means over the frame, so that something elsewhere in it costs little.

    Args:
        features: T x D float32 of one clip, as `frame_features.NetworkFeatures` gives.
        other: the same of the clip it pairs with.

    Raises:
        ValueError: unlike shapes.
    """
    if features.shape != other.shape or features.ndim != 2:
        raise ValueError(f"features of shapes {features.shape} and {other.shape} do not pair: both must be T x D")
    return float(np.linalg.norm(features.astype(np.float64) - other, axis=1).mean())


def spectrum_distance(clip: NDArray[np.uint8], other: NDArray[np.uint8]) -> float:
    """Content without a network: mean over frames of the relative distance between the amplitude spectra of frames.

    A spectrum without its phases (of each colour by itself) stays the same when what a frame shows is shifted round.
    0 for equal clips; 1 is as far as `clip` is from black. It is `vdmini.importance.content_distance` of one clip.

    Args:
        clip: T H W C uint8, the one that the distance is relative to.
        other: a clip of that shape.

    Raises:
        ValueError: unlike shapes, or another layout or dtype.
    """
    if clip.shape != other.shape or clip.ndim != 4 or not clip.dtype == other.dtype == np.uint8:
        raise ValueError(
            f"clips {clip.dtype} {clip.shape} and {other.dtype} {other.shape} do not pair: both must be uint8 T H W C"
        )
    first, second = (np.abs(np.fft.rfft2(each / 255, axes=(1, 2), norm="ortho")) for each in (clip, other))
    axes = (1, 2, 3)
    length = np.sqrt((first**2).sum(axis=axes)).clip(min=1e-6)
    return float((np.sqrt(((first - second) ** 2).sum(axis=axes)) / length).mean())
