"""LTX-Video's text-to-video family, whose VAE makes one token of 32x32 pixels in 8 frames."""

from __future__ import annotations

from typing import Any

from diffusers.models.autoencoders.autoencoder_kl_ltx import AutoencoderKLLTXVideo
from diffusers.models.transformers.transformer_ltx import LTXVideoTransformer3DModel
from torch import nn

from vdmini.blocks import ModelInput
from vdmini.models.transformer import Stack, TransformerFamily
from vdmini.requests import SampleSettings
from vdmini.tasks.base import Task
from vdmini.tasks.flow import FlowTask

TEXT_TOKENS = 128

# Source: diffusers' scripts/convert_ltx_to_diffusers.py, which builds the class with its defaults.
CONFIGS: dict[str, dict[str, Any]] = {
    "ltx-video-2b": {
        "in_channels": 128,
        "out_channels": 128,
        "patch_size": 1,
        "patch_size_t": 1,
        "num_attention_heads": 32,
        "attention_head_dim": 64,
        "cross_attention_dim": 2048,
        "num_layers": 28,
        "activation_fn": "gelu-approximate",
        "qk_norm": "rms_norm_across_heads",
        "norm_elementwise_affine": False,
        "norm_eps": 1e-6,
        "caption_channels": 4096,
        "attention_bias": True,
        "attention_out_bias": True,
    },
}


class LtxVideo(TransformerFamily):
    """The VAE of version 0.9.0 has the defaults of its class (diffusers' scripts/convert_ltx_to_diffusers.py).

    Later versions share the denoiser, not the VAE.
    """

    name = "ltx"
    denoiser_class = LTXVideoTransformer3DModel
    vae_class = AutoencoderKLLTXVideo
    configs = CONFIGS
    stacks = (Stack("Block", "transformer_blocks", "num_layers"),)
    embeddings = ("proj_in", "time_embed", "caption_projection")
    output = ("norm_out", "proj_out")

    def default_task(self, denoiser: nn.Module) -> Task:
        return FlowTask()

    def default_input(self, denoiser: nn.Module) -> ModelInput:
        """One clip of 161 frames of 512x704 pixels, the pipeline's default."""
        return ModelInput(batch=1, frames=21, height=16, width=22)

    def input_shapes(self, denoiser: nn.Module, size: ModelInput) -> dict[str, tuple[int, ...]]:
        config: Any = denoiser.config
        tokens = size.frames * size.height * size.width
        return {
            "hidden_states": (size.batch, tokens, config.in_channels),
            "timestep": (size.batch,),
            "encoder_hidden_states": (size.batch, TEXT_TOKENS, config.caption_channels),
            "encoder_attention_mask": (size.batch, TEXT_TOKENS),
            "video_coords": (size.batch, 3, tokens),
        }

    def pipeline_options(self, settings: SampleSettings) -> dict[str, Any]:
        """The denoiser is told `frames_per_second`; the pipeline's own default is 25."""
        return {"frame_rate": settings.frames_per_second}


FAMILY = LtxVideo()
