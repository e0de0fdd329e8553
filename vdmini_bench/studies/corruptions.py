"""Known corruptions of clips, by severity: what a measure of content or of motion must notice, and must put in order.

Half of them change how clips move and leave their frames nearly as they are, the others change what frames show.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

# Footage has this many frames for one of a clip: at other speeds a clip takes other frames of it.
OVERSAMPLING = 4

Clip = NDArray[np.uint8]
Change = Callable[[Clip, float, np.random.Generator], Clip]


@dataclass(frozen=True)
class Corruption:
    """A way to corrupt clips: what it affects most, what its strength counts, its severities from mild to severe."""

    name: str
    affects: Literal["content", "motion"]
    unit: str
    severities: tuple[float, ...]


def at_speed(footage: Clip, speed: float, frames: int) -> Clip:
    """Take a clip of `frames` frames from the middle of footage L H W C, at a multiple of a quarter of its own speed.

    No frame is made up: half the speed takes every second frame where the clip takes every fourth.

    Raises:
        ValueError: the speed is no such multiple, or the footage is too short.
    """
    step = round(OVERSAMPLING * speed)
    if step < 1 or abs(step - OVERSAMPLING * speed) > 1e-9:
        raise ValueError(f"a speed of {speed} is no multiple of 1/{OVERSAMPLING}, the frames between which footage has")
    start = (len(footage) - 1 - (frames - 1) * step) // 2
    if start < 0:
        raise ValueError(f"footage of {len(footage)} frames holds no {frames} frames {step} apart: give a longer one")
    return footage[start::step][:frames]


def footage_frames(frames: int) -> int:
    """How many frames of footage a clip of `frames` frames needs for every severity of every corruption."""
    fastest = max(
        severity for corruption in CORRUPTIONS if corruption.name in SPEEDS for severity in corruption.severities
    )
    return round(OVERSAMPLING * fastest) * (frames - 1) + 1


def shuffle(clip: Clip, share: float, random: np.random.Generator) -> Clip:
    """Put frames in random order within stretches of that share of the clip, of two frames at least."""
    length = max(2, round(share * len(clip)))
    order = [
        start + position
        for start in range(0, len(clip), length)
        for position in random.permutation(min(length, len(clip) - start))
    ]
    return clip[order]


def freeze(clip: Clip, share: float, random: np.random.Generator) -> Clip:
    """Let the clip stand still for its last share of pairs of frames; all of it for 1."""
    last = round((len(clip) - 1) * (1 - share))
    return clip[np.minimum(np.arange(len(clip)), last)]


def jitter(clip: Clip, pixels: float, random: np.random.Generator) -> Clip:
    """Shift each frame by itself, normally distributed with that standard deviation in each direction; edges mirror."""
    return shifted(clip, random.normal(size=(len(clip), 2)) * pixels)


def shifted(clip: Clip, shifts: NDArray[np.float64]) -> Clip:
    """A clip T H W C whose frames are moved by T x 2 pixels (right, down), bilinear; edges mirror."""
    import cv2

    height, width = clip.shape[1:3]
    return np.stack(
        [
            cv2.warpAffine(
                np.ascontiguousarray(frame), np.array([[1, 0, x], [0, 1, y]], dtype=np.float32), (width, height),
                flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101,
            )
            for frame, (x, y) in zip(clip, shifts, strict=True)
        ]
    )  # fmt: skip


def blur(clip: Clip, pixels: float, random: np.random.Generator) -> Clip:
    """Blur each frame by a Gaussian of that standard deviation."""
    import cv2

    return np.stack([cv2.GaussianBlur(np.ascontiguousarray(frame), (0, 0), pixels) for frame in clip])


def noise(clip: Clip, levels: float, random: np.random.Generator) -> Clip:
    """Add to every value normally distributed noise of that standard deviation, of 255; anew for each frame."""
    noisy = clip + random.normal(size=clip.shape) * levels
    return np.rint(noisy).clip(0, 255).astype(np.uint8)


def recolour(clip: Clip, degrees: float, random: np.random.Generator) -> Clip:
    """Turn the hues and keep the brightness, in which optical flow is measured."""
    turn = np.exp(1j * np.deg2rad(degrees))
    to_yuv = np.array([[0.299, 0.587, 0.114], [-0.14713, -0.28886, 0.436], [0.615, -0.51499, -0.10001]])
    rotation = np.array([[1, 0, 0], [0, turn.real, -turn.imag], [0, turn.imag, turn.real]])
    turned = clip @ (np.linalg.inv(to_yuv) @ rotation @ to_yuv).T
    return np.rint(turned).clip(0, 255).astype(np.uint8)


SPEEDS = ("slower", "faster")
CORRUPTIONS = (
    Corruption("slower", "motion", "x the speed", (0.75, 0.5, 0.25)),
    Corruption("faster", "motion", "x the speed", (1.25, 1.5, 2.0)),
    Corruption("shuffle", "motion", "of the clip", (0.2, 0.5, 1.0)),
    Corruption("freeze", "motion", "of the clip", (0.25, 0.5, 1.0)),
    Corruption("jitter", "motion", "px", (0.5, 1.0, 2.0)),
    Corruption("blur", "content", "px", (0.5, 1.0, 2.0)),
    Corruption("noise", "content", "of 255", (4.0, 8.0, 16.0)),
    Corruption("recolour", "content", "degrees", (20.0, 60.0, 120.0)),
)
CHANGES: dict[str, Change] = {
    "shuffle": shuffle, "freeze": freeze, "jitter": jitter, "blur": blur, "noise": noise, "recolour": recolour,
}  # fmt: skip


def corrupt(footage: Clip, corruption: str, strength: float, frames: int, seed: int) -> Clip:
    """A corrupted clip of `frames` frames from the middle of footage L H W C uint8 RGB, `footage_frames(frames)` long.

    What is random depends on the corruption and `seed` alone: the severities of one clip share their noise.

    Raises:
        ValueError: an unknown corruption, or one that `at_speed` refuses.
    """
    if corruption in SPEEDS:
        return at_speed(footage, strength, frames)
    if corruption not in CHANGES:
        raise ValueError(f"no corruption {corruption!r}: take {', '.join((*SPEEDS, *CHANGES))}")
    digest = hashlib.sha256(f"{corruption}/{seed}".encode()).digest()
    random = np.random.default_rng(int.from_bytes(digest[:8], "little"))
    return CHANGES[corruption](at_speed(footage, 1.0, frames), strength, random)
