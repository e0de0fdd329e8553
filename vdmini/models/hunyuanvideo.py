"""HunyuanVideo's family: 20 blocks with a stream each for video and text, then 40 over both together."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from diffusers.models.autoencoders.autoencoder_kl_hunyuan_video import AutoencoderKLHunyuanVideo
from diffusers.models.transformers.transformer_hunyuan_video import HunyuanVideoTransformer3DModel
from torch import Tensor, nn

from vdmini.blocks import ModelInput
from vdmini.models.family import require_multiple
from vdmini.models.transformer import Stack, TransformerFamily
from vdmini.requests import SampleSettings
from vdmini.tasks.base import Task
from vdmini.tasks.flow import FlowTask

TEXT_TOKENS = 256

SINGLE_BLOCK_PARTS = ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp")


class HunyuanVideo(TransformerFamily):
    """Its guidance is embedded, at no extra cost (diffusers' scripts/convert_hunyuan_video_to_diffusers.py)."""

    name = "hunyuanvideo"
    cuts_text = True
    denoiser_class = HunyuanVideoTransformer3DModel
    vae_class = AutoencoderKLHunyuanVideo
    stacks = (
        Stack("Dual", "transformer_blocks", "num_layers"),
        Stack("Single", "single_transformer_blocks", "num_single_layers"),
    )
    # 97 frames of 544x960 pixels, the smaller of the published sizes.
    published_size = (25, 68, 120)
    texts = MappingProxyType({"encoder_hidden_states": (TEXT_TOKENS, "text_embed_dim")})
    masks = ("encoder_attention_mask",)

    def prepare_original(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """An original file's weights with the first layer of each single block, four layers in one, in its four parts.

        diffusers' converter splits that layer where the published width of 3072 wants it, whatever its width is.
        """
        split: dict[str, Tensor] = {}
        for name, weight in weights.items():
            block, fused, kind = name.partition(".linear1.")
            if not fused:
                split[name] = weight
                continue
            width = len(weights[f"{block}.linear2.weight"])
            parts = weight.split((width, width, width, len(weight) - 3 * width))
            split |= {f"{block}.{part}.{kind}": piece for part, piece in zip(SINGLE_BLOCK_PARTS, parts, strict=True)}
        return split

    def default_task(self, denoiser: nn.Module) -> Task:
        """Rectified flow, shifted as its published scheduler is."""
        return FlowTask()

    def input_shapes(self, denoiser: nn.Module, size: ModelInput) -> dict[str, tuple[int, ...]]:
        config: Any = denoiser.config
        shapes = super().input_shapes(denoiser, size)
        shapes["pooled_projections"] = (size.batch, config.pooled_projection_dim)
        return shapes | ({"guidance": (size.batch,)} if config.guidance_embeds else {})

    def passes_per_step(self, denoiser: nn.Module, settings: SampleSettings) -> int:
        return 1

    def narrowed(self, denoiser: nn.Module, width: int) -> dict[str, Any]:
        config: Any = denoiser.config
        require_multiple(width, config.attention_head_dim)
        return {"num_attention_heads": width // config.attention_head_dim}


FAMILY = HunyuanVideo()
