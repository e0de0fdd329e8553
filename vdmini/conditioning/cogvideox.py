"""CogVideoX's clips: latents of a causal video VAE, and a text as T5's embeddings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from diffusers.models.embeddings import get_3d_rotary_pos_embed
from diffusers.pipelines.cogvideo.pipeline_cogvideox import get_resize_crop_region_for_grid
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from torch import Tensor, nn

from vdmini.conditioning import transformer
from vdmini.conditioning.base import EncodeSettings, TrainingClip
from vdmini.conditioning.pixels import clip_pixels, encode_video
from vdmini.errors import ModelLoadError
from vdmini.models.cogvideox import FAMILY


@torch.no_grad()
def encode_clip(pipeline: DiffusionPipeline, clip: TrainingClip, settings: EncodeSettings) -> dict[str, Tensor]:
    """Encode a clip of 1 + 8k frames, the lengths that the model samples, and its prompt as the pipeline does.

    "latents" T C H W are VAE means times the scaling factor, "prompt_embeds" N E are T5's. Raises ValueError as
    `clip_pixels` does, and ModelLoadError for CogVideoX 1.5.
    """
    run: Any = pipeline
    config = run.transformer.config
    if config.patch_size_t is not None:
        raise ModelLoadError(
            "CogVideoX 1.5, whose patches span several latent frames, can be pruned and sampled, not yet distilled:"
            " give CogVideoX 2B or 5B"
        )
    pixels = clip_pixels(
        clip,
        multiple=run.vae_scale_factor_spatial * config.patch_size,
        frame_stride=2 * run.vae_scale_factor_temporal,
    )
    latents = encode_video(run.vae, pixels.to(run._execution_device)) * run.vae.config.scaling_factor
    return {"latents": latents, "prompt_embeds": _text(pipeline, clip.prompt)}


@torch.no_grad()
def unconditional(pipeline: DiffusionPipeline, settings: EncodeSettings) -> dict[str, Tensor]:
    """The embeddings N E of an empty prompt, float32."""
    return {"prompt_embeds": _text(pipeline, "")}


def _text(pipeline: DiffusionPipeline, prompt: str) -> Tensor:
    run: Any = pipeline
    embeds: Tensor = run.encode_prompt([prompt], do_classifier_free_guidance=False)[0]
    return embeds[0].float().cpu()


def denoiser_inputs(
    denoiser: nn.Module,
    latents: Tensor,
    timesteps: Tensor,
    conditions: Mapping[str, Tensor],
    guidance: Tensor | None,
) -> dict[str, Any]:
    """Keyword arguments of CogVideoX's transformer for `latents` B T C H W and timesteps 0 to 999.

    The 5B model also gets its rotary embedding, cosines and sines.
    """
    config: Any = denoiser.config
    dtype: Any = denoiser.dtype
    inputs: dict[str, Any] = {
        "hidden_states": latents.to(dtype),
        "timestep": timesteps,
        "encoder_hidden_states": conditions["prompt_embeds"].to(dtype),
    }
    if config.use_rotary_positional_embeddings:
        _, frames, _, height, width = latents.shape
        grid = (height // config.patch_size, width // config.patch_size)
        base = (config.sample_width // config.patch_size, config.sample_height // config.patch_size)
        inputs["image_rotary_emb"] = get_3d_rotary_pos_embed(
            embed_dim=config.attention_head_dim,
            crops_coords=get_resize_crop_region_for_grid(grid, *base),
            grid_size=grid,
            temporal_size=frames,
            device=latents.device,
        )
    return inputs


def prediction(output: Any) -> Tensor:
    """The v-prediction B T C H W, the denoiser's own layout."""
    sample: Tensor = output.sample
    return sample


def condition_embedding(conditions: Mapping[str, Tensor]) -> Tensor:
    """The mean of the prompt's tokens with its padding, which CogVideoX does not mask either: B E float32."""
    return conditions["prompt_embeds"].float().mean(1)


def encoder_channels(denoiser: nn.Module) -> tuple[int, ...]:
    """The width of the transformer, once for each map."""
    return transformer.encoder_channels(denoiser, FAMILY)


def encoder_features(denoiser: nn.Module, inputs: Mapping[str, Tensor]) -> list[Tensor]:
    """Maps (B T) C H W, in patches, from blocks of the first half."""
    config: Any = denoiser.config
    frames, _, height, width = inputs["hidden_states"].shape[1:]
    grid = (frames, height // config.patch_size, width // config.patch_size)
    return transformer.encoder_features(denoiser, FAMILY, inputs, grid)
