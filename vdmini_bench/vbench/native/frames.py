"""A clip as the official code sees it: every frame, and the sizes its networks want."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageSequence
from torch import Tensor
from torch.nn import functional as F

from vdmini_bench.data.video import read_every_frame, video_facts
from vdmini_bench.errors import UnreadableVideoError

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))

# Frames at a time. Larger batches are slower on a CPU, whose caches they leave, and a GPU is busy with these.
BATCH = 8
Transform = Callable[[Tensor], Tensor]
Kernel = Literal["bilinear", "bicubic"]
Normalisation = tuple[tuple[float, float, float], tuple[float, float, float]]


@dataclass(frozen=True, eq=False)
class Clip:
    """All frames of a video, T H W C uint8 RGB, and their rate; `seen` is what networks made of it, by their names."""

    frames: NDArray[np.uint8]
    frames_per_second: float
    seen: dict[str, Tensor] = field(default_factory=dict)


def read_clip(path: Path) -> Clip:
    """Decode a video once, for every dimension.

    Raises:
        UnreadableVideoError: it cannot be opened or decoded, or its frames change size.
    """
    if path.suffix != ".gif":
        return Clip(read_every_frame(path), video_facts(path).frames_per_second)
    try:
        with Image.open(path) as image:
            frames = [np.asarray(frame.convert("RGB")) for frame in ImageSequence.Iterator(image)]
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UnreadableVideoError(path, f"cannot be decoded ({error})") from error
    return Clip(np.stack(frames), 1.0)


def embed_frames(
    clip: Clip, device: torch.device, transform: Transform, network: Transform, batch: int = BATCH
) -> Tensor:
    """Features of every frame, `batch` at a time: T x D float32 on the CPU; `transform` is given 0 to 255."""
    parts = torch.from_numpy(clip.frames).permute(0, 3, 1, 2).split(batch)
    return torch.cat([network(transform(part.to(device).float())).float().cpu() for part in parts])


def resize_shorter(pixels: Tensor, side: int, kernel: Kernel, *, smooth: bool) -> Tensor:
    """Resize T C H W so that the shorter side is `side`, the longer in proportion and cut to a whole number.

    `smooth` is torchvision's antialias: a wider kernel where frames shrink.
    """
    height, width = pixels.shape[-2:]
    if min(height, width) == side:
        return pixels
    size = _shrunk(height, width, side)
    return F.interpolate(pixels, size, mode=kernel, align_corners=False, antialias=smooth)


def resize_square(pixels: Tensor, side: int) -> Tensor:
    """Resize T C H W to `side` x `side` whatever its shape, as torchvision's smoothed bicubic kernel does."""
    if pixels.shape[-2:] == (side, side):
        return pixels
    return F.interpolate(pixels, (side, side), mode="bicubic", align_corners=False, antialias=True)


def crop_centre(pixels: Tensor, side: int) -> Tensor:
    """The middle `side` x `side` pixels of T C H W, which is at least as large."""
    top, left = (round((length - side) / 2) for length in pixels.shape[-2:])
    return pixels[..., top : top + side, left : left + side]


def normalise(pixels: Tensor, of: Normalisation) -> Tensor:
    """Pixels from 0 to 255, less a mean and over a deviation for each colour, which are of pixels from 0 to 1."""
    mean, deviation = (pixels.new_tensor(values).view(3, 1, 1) for values in of)
    return (pixels / 255 - mean) / deviation


def resize_image(image: Image.Image, side: int, crop: int) -> Tensor:
    """The middle of an RGB picture whose shorter side Pillow resized (bicubic): 1 C H W float32, whole, 0 to 255."""
    if min(image.size) != side:
        image = image.resize(_shrunk(*image.size, side), Image.Resampling.BICUBIC)
    return crop_centre(pixels_of(image), crop)


def pixels_of(image: Image.Image) -> Tensor:
    """An RGB picture: 1 C H W float32, whole from 0 to 255."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float()


def _shrunk(first: int, second: int, side: int) -> tuple[int, int]:
    """Both sides, in their order, where the shorter is to be `side`."""
    longer = int(side * max(first, second) / min(first, second))
    return (side, longer) if first <= second else (longer, side)
