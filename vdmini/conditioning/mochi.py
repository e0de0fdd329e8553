"""Mochi's clips: latents of a causal video VAE, normalised by channel, and a text as T5's embeddings.

Mochi counts timesteps up to the data and predicts the way there, which its task is told by the option `inverted`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from torch import Tensor, nn

from vdmini.conditioning import transformer
from vdmini.conditioning.base import EncodeSettings, TrainingClip
from vdmini.conditioning.pixels import channel_values, clip_pixels, encode_video
from vdmini.models.mochi import FAMILY


@torch.no_grad()
def encode_clip(pipeline: DiffusionPipeline, clip: TrainingClip, settings: EncodeSettings) -> dict[str, Tensor]:
    """Encode a clip of 1 + 6k frames, and its prompt as the pipeline does.

    "latents" T C H W are VAE means, normalised by the VAE's own mean and deviation of each channel; "prompt_embeds" N E
    and "prompt_mask" N are T5's. Raises ValueError as `clip_pixels` does.
    """
    run: Any = pipeline
    config = run.vae.config
    pixels = clip_pixels(
        clip,
        multiple=run.vae_spatial_scale_factor * run.transformer.config.patch_size,
        frame_stride=run.vae_temporal_scale_factor,
    )
    latents = encode_video(run.vae, pixels.to(run._execution_device))
    if config.latents_mean is not None and config.latents_std is not None:
        latents = (latents - channel_values(config.latents_mean)) / channel_values(config.latents_std)
    return {"latents": latents * config.scaling_factor, **_text(pipeline, clip.prompt)}


@torch.no_grad()
def unconditional(pipeline: DiffusionPipeline, settings: EncodeSettings) -> dict[str, Tensor]:
    """The embeddings of an empty prompt, float32."""
    return _text(pipeline, "")


def _text(pipeline: DiffusionPipeline, prompt: str) -> dict[str, Tensor]:
    run: Any = pipeline
    embeds, mask, *_ = run.encode_prompt([prompt], do_classifier_free_guidance=False)
    return {"prompt_embeds": embeds[0].float().cpu(), "prompt_mask": mask[0].float().cpu()}


def denoiser_inputs(
    denoiser: nn.Module,
    latents: Tensor,
    timesteps: Tensor,
    conditions: Mapping[str, Tensor],
    guidance: Tensor | None,
) -> dict[str, Tensor]:
    """Keyword arguments of Mochi's transformer for `latents` B T C H W and its own timesteps, 1000 at the data."""
    dtype: Any = denoiser.dtype
    return {
        "hidden_states": latents.transpose(1, 2).to(dtype),
        "timestep": timesteps,
        "encoder_hidden_states": conditions["prompt_embeds"].to(dtype),
        "encoder_attention_mask": conditions["prompt_mask"].bool(),
    }


def prediction(output: Any) -> Tensor:
    """The velocity, clean latents minus noise, B T C H W."""
    sample: Tensor = output.sample
    return sample.transpose(1, 2)


def condition_embedding(conditions: Mapping[str, Tensor]) -> Tensor:
    """The mean of the prompt's own tokens, B E float32."""
    mask = conditions["prompt_mask"].float()
    total = (conditions["prompt_embeds"].float() * mask[..., None]).sum(1)
    return total / mask.sum(1, keepdim=True).clamp(min=1)


def encoder_channels(denoiser: nn.Module) -> tuple[int, ...]:
    """The width of the transformer, once for each map."""
    return transformer.encoder_channels(denoiser, FAMILY)


def encoder_features(denoiser: nn.Module, inputs: Mapping[str, Tensor]) -> list[Tensor]:
    """Maps (B T) C H W, in patches, from blocks of the first half."""
    config: Any = denoiser.config
    frames, height, width = inputs["hidden_states"].shape[2:]
    grid = (frames, height // config.patch_size, width // config.patch_size)
    return transformer.encoder_features(denoiser, FAMILY, inputs, grid)
