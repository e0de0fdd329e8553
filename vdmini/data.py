"""Clips to the tensors that distillation reads: latents, condition latents and image embeddings, encoded once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

if TYPE_CHECKING:
    from diffusers import AutoencoderKLTemporalDecoder, StableVideoDiffusionPipeline


@dataclass(frozen=True)
class EncodedClips:
    """Image-to-video training clips in latent space.

    `latents` N T C H W and `condition` N C H W are VAE means without the scaling factor, as SVD feeds them;
    `embeddings` N 1 E come from the image encoder; `time_ids` N 3 hold (fps - 1, motion bucket, noise strength).
    """

    latents: Tensor
    condition: Tensor
    embeddings: Tensor
    time_ids: Tensor
    scaling_factor: float

    def __len__(self) -> int:
        return len(self.latents)

    def save(self, path: Path) -> None:
        """Write the tensors as one safetensors file."""
        tensors = {"latents": self.latents, "condition": self.condition, "embeddings": self.embeddings}
        metadata = {"scaling_factor": repr(self.scaling_factor)}
        save_file({**tensors, "time_ids": self.time_ids}, path, metadata=metadata)

    @classmethod
    def load(cls, path: Path) -> EncodedClips:
        """Read what `save` wrote."""
        from safetensors import safe_open

        with safe_open(path, framework="pt") as file:
            scaling_factor = float(file.metadata()["scaling_factor"])
        return cls(scaling_factor=scaling_factor, **load_file(path))


@torch.inference_mode()
def encode_clips(
    pipeline: StableVideoDiffusionPipeline,
    clips: Iterable[NDArray[np.uint8]],
    *,
    frames_per_second: int,
    motion_bucket: int,
    noise_strength: float,
    on_clip: Callable[[], None] = lambda: None,
) -> EncodedClips:
    """Encode clips T H W C uint8 one by one, exactly as the pipeline encodes its condition image.

    The condition image is the first frame plus `noise_strength` times noise that belongs to the clip's position,
    so that neither order of work nor batch size changes a tensor.
    """
    device = pipeline.vae.device
    latents, condition, embeddings = [], [], []
    with _encoding_precision(pipeline.vae) as dtype:
        for position, clip in enumerate(clips):
            frames = torch.from_numpy(clip).permute(0, 3, 1, 2).to(device) / 127.5 - 1
            noise = torch.randn(frames[:1].shape, generator=torch.Generator().manual_seed(position)).to(device)
            latents.append(pipeline.vae.encode(frames.to(dtype)).latent_dist.mode().float().cpu())
            # The noise is added in float32, as the pipeline does, and only the sum is rounded.
            noisy = frames[:1] + noise_strength * noise
            condition.append(pipeline.vae.encode(noisy.to(dtype)).latent_dist.mode()[0].float().cpu())
            embedding = pipeline._encode_image([Image.fromarray(clip[0])], device, 1, False)
            embeddings.append(embedding[0].float().cpu())
            on_clip()
    time_ids = torch.tensor([[frames_per_second - 1, motion_bucket, noise_strength]]).repeat(len(latents), 1)
    return EncodedClips(
        torch.stack(latents).contiguous(),
        torch.stack(condition).contiguous(),
        torch.stack(embeddings).contiguous(),
        time_ids.float(),
        float(pipeline.vae.config.scaling_factor),
    )


@contextmanager
def _encoding_precision(vae: AutoencoderKLTemporalDecoder) -> Iterator[torch.dtype]:
    """The number format to encode in: SVD's VAE overflows in float16, and the pipeline lifts it to float32 then."""
    loaded = vae.dtype
    lifted = loaded == torch.float16 and vae.config.force_upcast
    if lifted:
        vae.to(torch.float32)
    try:
        yield vae.dtype
    finally:
        if lifted:
            vae.to(loaded)
