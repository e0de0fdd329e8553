"""Train the embedded denoiser and its image encoder on cached latents of the drawn clips."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, AutoencoderKLTemporalDecoder, UNetSpatioTemporalConditionModel
from diffusers.pipelines.stable_video_diffusion.pipeline_stable_video_diffusion import _resize_with_antialiasing
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import CLIPVisionModelWithProjection
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from vdmini.tasks.edm import EdmTask, edm_loss
from vdmini_bench.data.synthetic import FRAMES_PER_SECOND
from vdmini_bench.embedded.architecture import build_denoiser, build_image_encoder
from vdmini_bench.embedded.training_loop import half_where_fast, train_steps

CLIPS_PER_STEP = 8
LEARNING_RATE = 8e-4
TASK = EdmTask(sigma_mean=0.0, sigma_std=1.5)
MOTION_BUCKET = 127


class ImageToVideo(nn.Module):
    """The two networks trained together: the denoiser and the image encoder it attends to."""

    def __init__(
        self, denoiser: UNetSpatioTemporalConditionModel, image_encoder: CLIPVisionModelWithProjection
    ) -> None:
        super().__init__()
        self.denoiser = denoiser
        self.image_encoder = image_encoder


def train_denoiser(
    clips: Tensor,
    vae: AutoencoderKLTemporalDecoder,
    steps: int,
    checkpoint: Path,
    device: torch.device,
    initial: ImageToVideo | None = None,
) -> ImageToVideo:
    """Train for `steps` on `clips` N T C H W uint8; returns the exponential moving average of the networks.

    Starts from `initial` where given; a checkpoint goes before it.
    """
    latents = encoded_once(vae, clips, checkpoint.parent)
    scale = float(vae.config.scaling_factor)
    torch.manual_seed(0)
    model = (initial or ImageToVideo(build_denoiser(), build_image_encoder())).to(device)
    average = copy.deepcopy(model).requires_grad_(False)

    def loss_of_step(step: int) -> Tensor:
        chosen = torch.randint(0, len(clips), (CLIPS_PER_STEP,))
        unscaled = latents[chosen].to(device)
        clean = unscaled * scale
        noise, sigmas = torch.randn_like(clean), TASK.draw_levels(len(clean), torch.default_generator).to(device)
        scaled, timesteps = TASK.network_input(TASK.noisy(clean, noise, sigmas), sigmas)
        condition = unscaled[:, :1].expand(-1, clean.shape[1], -1, -1, -1)
        time_ids = torch.tensor([[FRAMES_PER_SECOND - 1, MOTION_BUCKET, 0.0]], device=device).expand(len(clean), -1)
        with half_where_fast(device):
            pixels = clip_pixels(clips[chosen, 0].to(device).float() / 127.5 - 1)
            embeddings = model.image_encoder(pixels).image_embeds[:, None]
            prediction = model.denoiser(
                torch.cat([scaled, condition], dim=2), timesteps, embeddings, added_time_ids=time_ids
            ).sample
        return edm_loss(prediction, clean, noise, sigmas)

    train_steps(model, loss_of_step, steps=steps, learning_rate=LEARNING_RATE, checkpoint=checkpoint, average=average)
    return average.eval()


def encode_clips(vae: AutoencoderKL | AutoencoderKLTemporalDecoder, clips: Tensor) -> Tensor:
    """Encode N T C H W uint8 clips to unscaled latents N T 4 H/8 W/8 float32, a few clips at a time."""
    with torch.inference_mode():
        encoded = [
            vae.encode(part.flatten(0, 1).to(vae.device).float() / 127.5 - 1)
            .latent_dist.mean.unflatten(0, part.shape[:2])
            .cpu()
            for part in clips.split(8)
        ]
    return torch.cat(encoded).clone()


def encoded_once(
    vae: nn.Module, clips: Tensor, folder: Path, encode: Callable[[Any, Tensor], Tensor] = encode_clips
) -> Tensor:
    """What `encode` makes of clips N T C H W uint8, kept in `folder` by encoder, scaling and clips."""
    encoder = vae.get_submodule("encoder")
    digest = hashlib.sha256(b"".join(tensor.detach().cpu().numpy().tobytes() for tensor in encoder.parameters()))
    config: Any = vae.config
    digest.update(repr([config.get(name) for name in ("scaling_factor", "latents_mean", "latents_std")]).encode())
    digest.update(clips.contiguous().numpy().data)
    stored = folder / f"latents-{len(clips)}-{digest.hexdigest()[:12]}.safetensors"
    if not stored.exists():
        save_file({"latents": encode(vae, clips).contiguous()}, stored)
    return load_file(stored)["latents"]


def clip_pixels(images: Tensor) -> Tensor:
    """Resize and normalise B C H W images in [-1, 1] to CLIP's 224x224 input as SVD's pipeline does."""
    resized = (_resize_with_antialiasing(images, (224, 224)) + 1) / 2
    mean, std = (images.new_tensor(each)[:, None, None] for each in (OPENAI_CLIP_MEAN, OPENAI_CLIP_STD))
    return (resized - mean) / std
