"""Mochi's text-to-video family, whose last block ends the text stream and so cannot leave."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

from diffusers.models.autoencoders.autoencoder_kl_mochi import AutoencoderKLMochi
from diffusers.models.transformers.transformer_mochi import MochiTransformer3DModel
from torch import nn

from vdmini.models.parts import Stack
from vdmini.models.transformer import TransformerFamily
from vdmini.requests import SampleSettings
from vdmini.tasks.flow import FlowTask

TEXT_TOKENS = 256


class Mochi(TransformerFamily):
    """Its network counts timesteps up to clean (diffusers' scripts/convert_mochi_to_diffusers.py)."""

    name = "mochi"
    denoiser_class = MochiTransformer3DModel
    vae_class = AutoencoderKLMochi
    stacks = (Stack("Block", "transformer_blocks", "num_layers", last="last_block"),)
    # 163 frames of 480x848 pixels.
    published_size = (28, 60, 106)
    task = FlowTask(inverted=True)
    texts = MappingProxyType({"encoder_hidden_states": (TEXT_TOKENS, "text_embed_dim")})
    masks = ("encoder_attention_mask",)

    def pipeline_options(self, denoiser: nn.Module, settings: SampleSettings) -> dict[str, Any]:
        """None; raises ValueError for one step, which its half linear schedule does not divide into."""
        if settings.steps < 2:
            raise ValueError(f"this model takes 2 steps or more, not {settings.steps}: ask for more")
        return {}


FAMILY = Mochi()
