"""HunyuanVideo's clips: latents of a causal video VAE, and a text as Llama's and as CLIP's embeddings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from torch import Tensor, nn

from vdmini.conditioning import transformer
from vdmini.conditioning.base import EncodeSettings, TrainingClip
from vdmini.conditioning.pixels import clip_pixels, encode_video
from vdmini.models.hunyuanvideo import FAMILY

# The pipeline's default.
GUIDANCE = 6.0


@torch.no_grad()
def encode_clip(pipeline: DiffusionPipeline, clip: TrainingClip, settings: EncodeSettings) -> dict[str, Tensor]:
    """Encode a clip of 1 + 4k frames, and its prompt as the pipeline does.

    "latents" T C H W are VAE means times the scaling factor. "prompt_embeds" N E and "prompt_mask" N are Llama's,
    "pooled_prompt" E is CLIP's. Raises ValueError as `clip_pixels` does.
    """
    run: Any = pipeline
    pixels = clip_pixels(
        clip,
        multiple=run.vae_scale_factor_spatial * run.transformer.config.patch_size,
        frame_stride=run.vae_scale_factor_temporal,
    )
    latents = encode_video(run.vae, pixels.to(run._execution_device)) * run.vae.config.scaling_factor
    return {"latents": latents, **_text(pipeline, clip.prompt)}


@torch.no_grad()
def unconditional(pipeline: DiffusionPipeline, settings: EncodeSettings) -> dict[str, Tensor]:
    """The embeddings of an empty prompt, float32; the published model has its guidance embedded and needs none."""
    return _text(pipeline, "")


def _text(pipeline: DiffusionPipeline, prompt: str) -> dict[str, Tensor]:
    run: Any = pipeline
    embeds, pooled, mask = run.encode_prompt(prompt=[prompt], device=run._execution_device)
    return {
        name: value[0].float().cpu().contiguous()
        for name, value in (("prompt_embeds", embeds), ("pooled_prompt", pooled), ("prompt_mask", mask))
    }


def denoiser_inputs(
    denoiser: nn.Module,
    latents: Tensor,
    timesteps: Tensor,
    conditions: Mapping[str, Tensor],
    guidance: Tensor | None,
) -> dict[str, Tensor]:
    """Keyword arguments of HunyuanVideo's transformer for `latents` B T C H W and timesteps 0 to 1000.

    A network with a guidance embedding gets a thousand times `guidance`, 6 where it is None.
    """
    config: Any = denoiser.config
    dtype: Any = denoiser.dtype
    inputs = {
        "hidden_states": latents.transpose(1, 2).to(dtype),
        "timestep": timesteps,
        "encoder_hidden_states": conditions["prompt_embeds"].to(dtype),
        "encoder_attention_mask": conditions["prompt_mask"].to(dtype),
        "pooled_projections": conditions["pooled_prompt"].to(dtype),
    }
    if config.guidance_embeds:
        scales = torch.full_like(timesteps, GUIDANCE, dtype=dtype) if guidance is None else guidance.to(dtype)
        inputs["guidance"] = scales * 1000
    return inputs


def prediction(output: Any) -> Tensor:
    """The velocity, noise minus clean latents, B T C H W."""
    sample: Tensor = output.sample
    return sample.transpose(1, 2)


def condition_embedding(conditions: Mapping[str, Tensor]) -> Tensor:
    """CLIP's embedding of the prompt, B E float32."""
    return conditions["pooled_prompt"].float()


def encoder_channels(denoiser: nn.Module) -> tuple[int, ...]:
    """The width of the transformer, once for each map."""
    return transformer.encoder_channels(denoiser, FAMILY)


def encoder_features(denoiser: nn.Module, inputs: Mapping[str, Tensor]) -> list[Tensor]:
    """Maps (B T) C H W, in patches, from blocks of the first half."""
    config: Any = denoiser.config
    frames, height, width = inputs["hidden_states"].shape[2:]
    grid = (frames // config.patch_size_t, height // config.patch_size, width // config.patch_size)
    return transformer.encoder_features(denoiser, FAMILY, inputs, grid)
