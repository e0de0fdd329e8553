"""Sample clips from a video pipeline, one generator for each clip's seed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

if TYPE_CHECKING:
    from diffusers import StableVideoDiffusionPipeline


@dataclass(frozen=True)
class ClipRequest:
    """One clip to sample: its name, its seed and its condition image H W C uint8 RGB."""

    name: str
    seed: int
    image: NDArray[np.uint8]


@dataclass(frozen=True)
class SampleSettings:
    """How an image-to-video pipeline samples; the names are those of `StableVideoDiffusionPipeline`."""

    steps: int
    frames: int
    height: int
    width: int
    frames_per_second: int = 7
    motion_bucket: int = 127
    noise_strength: float = 0.02
    min_guidance: float = 1.0
    max_guidance: float = 3.0


def sample_clips(
    pipeline: StableVideoDiffusionPipeline, requests: Sequence[ClipRequest], settings: SampleSettings
) -> NDArray[np.uint8]:
    """Sample one batch: B T H W C uint8 RGB, clip i from requests[i].

    All of a clip's noise comes from a CPU generator seeded with the clip's own seed, so the batch it travels in, the
    device and the order of work do not choose its noise; batch sizes differ by float rounding alone.
    """
    pipeline.set_progress_bar_config(disable=True)
    video = pipeline(
        image=[Image.fromarray(request.image) for request in requests],
        height=settings.height,
        width=settings.width,
        num_frames=settings.frames,
        num_inference_steps=settings.steps,
        min_guidance_scale=settings.min_guidance,
        max_guidance_scale=settings.max_guidance,
        fps=settings.frames_per_second,
        motion_bucket_id=settings.motion_bucket,
        noise_aug_strength=settings.noise_strength,
        decode_chunk_size=settings.frames,
        generator=[torch.Generator().manual_seed(request.seed) for request in requests],
        output_type="np",
    ).frames
    return np.rint(np.asarray(video) * 255).clip(0, 255).astype(np.uint8)


def batches(requests: Sequence[ClipRequest], batch_size: int) -> Iterator[Sequence[ClipRequest]]:
    """Cut `requests` into consecutive batches of at most `batch_size`."""
    for start in range(0, len(requests), batch_size):
        yield requests[start : start + batch_size]
