"""LTX-Video's text-to-video family, whose VAE makes one token of 32x32 pixels in 8 frames."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

from diffusers.models.autoencoders.autoencoder_kl_ltx import AutoencoderKLLTXVideo
from diffusers.models.transformers.transformer_ltx import LTXVideoTransformer3DModel
from torch import nn

from vdmini.blocks import ModelInput
from vdmini.models.transformer import Stack, TransformerFamily
from vdmini.tasks.base import Task
from vdmini.tasks.flow import FlowTask

TEXT_TOKENS = 128


class LtxVideo(TransformerFamily):
    """Version 0.9.0 has the defaults of its classes (diffusers' scripts/convert_ltx_to_diffusers.py).

    Later versions share the denoiser, not the VAE.
    """

    name = "ltx"
    denoiser_class = LTXVideoTransformer3DModel
    vae_class = AutoencoderKLLTXVideo
    stacks = (Stack("Block", "transformer_blocks", "num_layers"),)
    # 161 frames of 512x704 pixels, the pipeline's default.
    published_size = (21, 16, 22)
    texts = MappingProxyType({"encoder_hidden_states": (TEXT_TOKENS, "caption_channels")})
    masks = ("encoder_attention_mask",)

    def default_task(self, denoiser: nn.Module) -> Task:
        return FlowTask()

    def input_shapes(self, denoiser: nn.Module, size: ModelInput) -> dict[str, tuple[int, ...]]:
        """Latents come as tokens, with the place of each in the video."""
        config: Any = denoiser.config
        tokens = size.frames * size.height * size.width
        changed = {"hidden_states": (size.batch, tokens, config.in_channels), "video_coords": (size.batch, 3, tokens)}
        return super().input_shapes(denoiser, size) | changed


FAMILY = LtxVideo()
