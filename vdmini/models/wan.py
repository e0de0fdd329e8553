"""Wan's text-to-video family: Wan 2.1, and each of the two experts of Wan 2.2."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
from torch import nn

from vdmini.models.family import require_multiple
from vdmini.models.transformer import Stack, TransformerFamily
from vdmini.tasks.base import Task
from vdmini.tasks.flow import FlowTask

TEXT_TOKENS = 512

# Source: diffusers' scripts/convert_wan_to_diffusers.py (Wan-T2V-1.3B, Wan-T2V-14B, Wan2.2-T2V-A14B).
CONFIGS: dict[str, dict[str, Any]] = {
    "wan2.1-t2v-1.3b": {"num_attention_heads": 12, "ffn_dim": 8960, "num_layers": 30},
}


class Wan(TransformerFamily):
    """All share the VAE of Wan 2.1; a published model of Wan 2.2 is one of its experts."""

    name = "wan"
    guides_apart = True
    denoiser_class = WanTransformer3DModel
    vae_class = AutoencoderKLWan
    configs = CONFIGS
    stacks = (Stack("Block", "blocks", "num_layers"),)
    # 81 frames of 480x832 pixels, the pipeline's default.
    published_size = (21, 60, 104)
    texts = MappingProxyType({"encoder_hidden_states": (TEXT_TOKENS, "text_dim")})

    def latent_compression(self, vae: Any) -> tuple[int, int]:
        return vae.config.scale_factor_temporal, vae.config.scale_factor_spatial

    def default_task(self, denoiser: nn.Module) -> Task:
        """Rectified flow, shifted as its pipeline documents for 480p."""
        return FlowTask(shift=3.0)

    def narrowed(self, denoiser: nn.Module, width: int) -> dict[str, Any]:
        config: Any = denoiser.config
        require_multiple(width, config.attention_head_dim)
        heads = width // config.attention_head_dim
        return {"num_attention_heads": heads, "ffn_dim": config.ffn_dim * heads // config.num_attention_heads}


FAMILY = Wan()
