"""Motif-Video's family: dual and single blocks, then decoder blocks over the clip and what those made of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan
from diffusers.models.transformers.transformer_motif_video import MotifVideoTransformer3DModel
from torch import nn

from vdmini.models.family import Images
from vdmini.models.parts import Stack
from vdmini.models.transformer import TransformerFamily
from vdmini.tasks.flow import FlowTask

TEXT_TOKENS = 512


@dataclass(frozen=True)
class PartOfStack(Stack):
    """The decoder blocks at the end of a list, or those before them."""

    decodes: bool = False

    def modules(self, denoiser: Any) -> Sequence[nn.Module]:
        listed = super().modules(denoiser)
        start = len(listed) - denoiser.config.num_decoder_layers
        return listed[start:] if self.decodes else listed[:start]


class MotifVideo(TransformerFamily):
    """It makes clips with and without an image; the last single blocks are its decoder."""

    name = "motif-video"
    task = FlowTask(shift=2.5)
    guides_apart = True
    denoiser_class = MotifVideoTransformer3DModel
    vae_class = AutoencoderKLWan
    # Source: the sizes that the authors' ComfyUI-MotifVideo1.9B reads out of the published transformer.
    configs = MappingProxyType(
        {
            "motif-video-2b": {
                "num_attention_heads": 12, "num_layers": 12, "num_single_layers": 24, "num_decoder_layers": 8,
                "text_embed_dim": 2560, "image_embed_dim": 1152, "rope_theta": 10000.0,
                "enable_text_cross_attention_single": True,
            }
        }
    )  # fmt: skip
    stacks = (
        Stack("Dual", "transformer_blocks", "num_layers"),
        PartOfStack("Single", "single_transformer_blocks", "num_single_layers"),
        PartOfStack("Decoder", "single_transformer_blocks", "num_decoder_layers", decodes=True),
    )
    # 121 frames of 736x1280 pixels, the pipeline's default.
    published_size = (31, 92, 160)
    texts = MappingProxyType({"encoder_hidden_states": (TEXT_TOKENS, "text_embed_dim")})
    masks = ("encoder_attention_mask",)
    image_pipeline = "MotifVideoImage2VideoPipeline"
    batches_images = False

    def images(self, denoiser: nn.Module) -> Images:
        """The channels beside the clip's are zero without one."""
        return "optional"

    def counts(self, places: Mapping[str, Sequence[int]]) -> dict[str, int]:
        """The decoder's blocks count among the single ones."""
        counts = super().counts(places)
        return counts | {"num_single_layers": counts["num_single_layers"] + counts["num_decoder_layers"]}


FAMILY = MotifVideo()
