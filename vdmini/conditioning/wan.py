"""Wan's clips: latents of a causal video VAE, normalised by channel, and a text as UMT5's embeddings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from torch import Tensor, nn

from vdmini.conditioning import transformer
from vdmini.conditioning.base import EncodeSettings, TrainingClip
from vdmini.conditioning.pixels import channel_values, clip_pixels, encode_video
from vdmini.models.wan import FAMILY, TEXT_TOKENS


@torch.no_grad()
def encode_clip(pipeline: DiffusionPipeline, clip: TrainingClip, settings: EncodeSettings) -> dict[str, Tensor]:
    """Encode a clip of 1 + 4k frames, and its prompt as the pipeline does.

    "latents" T C H W are VAE means, normalised by the VAE's own mean and deviation of each channel; "prompt_embeds" N E
    are zero after the prompt's last token. Raises ValueError as `clip_pixels` does.
    """
    run: Any = pipeline
    height, width = run.transformer.config.patch_size[1:]
    pixels = clip_pixels(
        clip, multiple=run.vae_scale_factor_spatial * max(height, width), frame_stride=run.vae_scale_factor_temporal
    )
    latents = encode_video(run.vae, pixels.to(run._execution_device))
    mean, deviation = (channel_values(run.vae.config[name]) for name in ("latents_mean", "latents_std"))
    return {"latents": (latents - mean) / deviation, "prompt_embeds": _text(pipeline, clip.prompt)}


@torch.no_grad()
def unconditional(pipeline: DiffusionPipeline, settings: EncodeSettings) -> dict[str, Tensor]:
    """The embeddings N E of an empty prompt, float32."""
    return {"prompt_embeds": _text(pipeline, "")}


def _text(pipeline: DiffusionPipeline, prompt: str) -> Tensor:
    run: Any = pipeline
    embeds = run.encode_prompt([prompt], do_classifier_free_guidance=False, max_sequence_length=TEXT_TOKENS)[0]
    context: Tensor = embeds[0].float().cpu()
    return context


def denoiser_inputs(
    denoiser: nn.Module,
    latents: Tensor,
    timesteps: Tensor,
    conditions: Mapping[str, Tensor],
    guidance: Tensor | None,
) -> dict[str, Tensor]:
    """Keyword arguments of Wan's transformer for `latents` B T C H W and timesteps 0 to 1000."""
    dtype: Any = denoiser.dtype
    return {
        "hidden_states": latents.transpose(1, 2).to(dtype),
        "timestep": timesteps,
        "encoder_hidden_states": conditions["prompt_embeds"].to(dtype),
    }


def prediction(output: Any) -> Tensor:
    """The velocity, noise minus clean latents, B T C H W."""
    sample: Tensor = output.sample
    return sample.transpose(1, 2)


def condition_embedding(conditions: Mapping[str, Tensor]) -> Tensor:
    """The mean of the prompt's own tokens, B E float32."""
    embeds = conditions["prompt_embeds"].float()
    tokens = embeds.any(2).sum(1, keepdim=True)
    return embeds.sum(1) / tokens.clamp(min=1)


def encoder_channels(denoiser: nn.Module) -> tuple[int, ...]:
    """The width of the transformer, once for each map."""
    return transformer.encoder_channels(denoiser, FAMILY)


def encoder_features(denoiser: nn.Module, inputs: Mapping[str, Tensor]) -> list[Tensor]:
    """Maps (B T) C H W, in patches, from blocks of the first half."""
    config: Any = denoiser.config
    frames, height, width = (
        size // patch for size, patch in zip(inputs["hidden_states"].shape[2:], config.patch_size, strict=True)
    )
    return transformer.encoder_features(denoiser, FAMILY, inputs, (frames, height, width))
