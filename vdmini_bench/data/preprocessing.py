"""From the frames of a file to the frames a protocol scores: each chain is that of a published implementation."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Clip = NDArray[np.uint8]


def preprocess_clip(
    clip: Clip, preprocessing: Preprocessing, width: int | None = None, height: int | None = None
) -> Clip:
    """Bring T H W C uint8 RGB frames of any size to those a protocol scores, uint8 too.

    `width` and `height` are of the chain "resize" alone, which changes nothing without them.
    """
    if preprocessing == "resize":
        return resize_clip(clip, width, height)
    return CHAINS[preprocessing](clip)


def resize_clip(clip: Clip, width: int | None, height: int | None) -> Clip:
    """Resize T H W C uint8 frames to `width` x `height` (bicubic, antialiased); None or the same size: no change."""
    if width is None or height is None:
        return clip
    return _resize(clip, width, height, Image.Resampling.BICUBIC)


def centre_crop(clip: Clip, width: int, height: int) -> Clip:
    """The central `width` x `height` pixels of T H W C frames; an odd pixel stays at the right and the bottom.

    Raises:
        ValueError: the frames are smaller.
    """
    rows, columns = clip.shape[1:3]
    if height > rows or width > columns:
        raise ValueError(f"frames of {columns}x{rows} hold no centre of {width}x{height}")
    top, left = (rows - height) // 2, (columns - width) // 2
    return clip[:, top : top + height, left : left + width]


def square_256_lanczos(clip: Clip) -> Clip:
    """StyleGAN-V's data preparation: the central square, resized to 256x256 by Lanczos, antialiased."""
    side = min(clip.shape[1:3])
    return _resize(centre_crop(clip, side, side), 256, 256, Image.Resampling.LANCZOS)


def short_side_240_crop_320x240(clip: Clip) -> Clip:
    """Stable Video Diffusion's: 576x320 to 432x240 (bilinear, antialiased), then the central 320x240.

    A real UCF101 clip has that size and stays as it is. The resized frames are rounded to the nearest integer.
    """
    rows, columns = clip.shape[1:3]
    scale = max(240 / rows, 320 / columns)
    height, width = max(240, round(rows * scale)), max(320, round(columns * scale))
    return centre_crop(_bilinear(clip, height, width, truncate=False), 320, 240)


def short_side_256_crop_square(clip: Clip) -> Clip:
    """cd-fvd's: the short side to 256 (bilinear, antialiased, the long side rounded up), then the central square.

    It works in [0, 1] and then truncates to integers, which darkens by half a step: kept, since it is in its numbers.
    """
    rows, columns = clip.shape[1:3]
    scale = 256 / min(rows, columns)
    height, width = (256, math.ceil(columns * scale)) if rows < columns else (math.ceil(rows * scale), 256)
    return centre_crop(_bilinear(clip, height, width, truncate=True), 256, 256)


CHAINS: dict[str, Callable[[Clip], Clip]] = {
    "square-256-lanczos": square_256_lanczos,
    "short-side-240-crop-320x240": short_side_240_crop_320x240,
    "short-side-256-crop-square": short_side_256_crop_square,
}


def _resize(clip: Clip, width: int, height: int, kind: Image.Resampling) -> Clip:
    if clip.shape[1:3] == (height, width):
        return clip
    frames = [Image.fromarray(frame).resize((width, height), kind) for frame in clip]
    return np.stack([np.asarray(frame) for frame in frames])


def _bilinear(clip: Clip, height: int, width: int, truncate: bool) -> Clip:
    import torch
    from torch.nn import functional

    if not truncate and clip.shape[1:3] == (height, width):
        return clip
    frames = torch.from_numpy(np.ascontiguousarray(clip)).permute(0, 3, 1, 2).float()
    if truncate:
        frames = frames / 255.0
    resized = functional.interpolate(frames, size=(height, width), mode="bilinear", align_corners=False, antialias=True)
    whole = (resized * 255).clamp(0, 255) if truncate else resized.round().clamp(0, 255)
    return whole.to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()


# The chains of `vdmini_bench.data.preprocessing`.
Preprocessing = Literal["resize", "square-256-lanczos", "short-side-240-crop-320x240", "short-side-256-crop-square"]
