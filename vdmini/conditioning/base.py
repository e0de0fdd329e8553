"""What feeding clips to a denoiser starts from: one clip, and what all clips of a run share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class TrainingClip:
    """One clip to train on: `frames` T H W C uint8 RGB, what they show, and the seed of noise that encoding may add."""

    name: str
    frames: NDArray[np.uint8]
    prompt: str = ""
    seed: int = 0


@dataclass(frozen=True)
class EncodeSettings:
    """What all clips of a run share; the motion bucket and the noise strength are Stable Video Diffusion's."""

    frames_per_second: float
    motion_bucket: int = 127
    noise_strength: float = 0.0
