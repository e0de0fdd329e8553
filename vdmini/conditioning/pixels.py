"""Clips on their way into a VAE: their size, their range and the number format they are encoded in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from vdmini.conditioning.base import TrainingClip


def clip_pixels(clip: TrainingClip, *, multiple: int, frame_stride: int = 1) -> Tensor:
    """A clip's frames, T C H W float32 in [-1, 1].

    Raises ValueError unless height and width divide by `multiple` and there are 1 + k * `frame_stride` frames.
    """
    frames, height, width = clip.frames.shape[:3]
    if height % multiple or width % multiple:
        raise ValueError(
            f"clip {clip.name!r}: {height}x{width} pixels do not divide by {multiple}, as this model needs: crop it to"
            f" {height // multiple * multiple}x{width // multiple * multiple}"
        )
    if (frames - 1) % frame_stride:
        nearest = round((frames - 1) / frame_stride) * frame_stride + 1
        raise ValueError(
            f"clip {clip.name!r}: {frames} frames, where this model takes 1 + {frame_stride}k: give {nearest} frames"
        )
    # A copy, since frames may be read-only or a mirrored view.
    frames_first = torch.from_numpy(clip.frames.copy()).permute(0, 3, 1, 2)
    # In the order of operations, and of memory, in which pipelines prepare an image, to equal theirs to the last bit.
    return frames_first / 255 * 2 - 1


def encode_video(vae: Any, pixels: Tensor) -> Tensor:
    """The mean of a video VAE's latents T C H W, float32 on the CPU and not yet scaled, of T C H W pixels."""
    video = pixels.transpose(0, 1)[None].to(vae.dtype)
    latents: Tensor = vae.encode(video).latent_dist.mode()[0]
    return latents.transpose(0, 1).float().cpu().contiguous()


def encode_frames(pipeline: Any, clip: TrainingClip, multiple: int) -> Tensor:
    """The means of an image VAE's latents of every frame times its scaling factor, T C H W float32 on the CPU.

    Raises ValueError as `clip_pixels` does.
    """
    frames = clip_pixels(clip, multiple=multiple).to(pipeline._execution_device)
    with encoding_precision(pipeline.vae) as dtype:
        latents: Tensor = pipeline.vae.encode(frames.to(dtype)).latent_dist.mode()
    scale: float = pipeline.vae.config.scaling_factor
    return latents.float().cpu().contiguous() * scale


def channel_values(values: Tensor | Sequence[float]) -> Tensor:
    """One number for each channel of T C H W latents, float32 on the CPU, ready to be added or multiplied."""
    return torch.as_tensor(values).float().cpu().view(-1, 1, 1)


@contextmanager
def encoding_precision(vae: Any) -> Iterator[torch.dtype]:
    """The number format to encode in: Stable Diffusion's VAEs overflow in float16, and are lifted to float32 then."""
    loaded = vae.dtype
    lifted = loaded == torch.float16 and vae.config.force_upcast
    if lifted:
        vae.to(torch.float32)
    try:
        yield vae.dtype
    finally:
        if lifted:
            vae.to(loaded)
