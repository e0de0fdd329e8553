"""HunyuanVideo's family: 20 blocks with a stream each for video and text, then 40 over both together."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from diffusers.models.autoencoders.autoencoder_kl_hunyuan_video import AutoencoderKLHunyuanVideo
from diffusers.models.transformers.transformer_hunyuan_video import HunyuanVideoTransformer3DModel
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from torch import Tensor, nn

from vdmini.blocks import ModelInput
from vdmini.models.family import Images, require_multiple
from vdmini.models.parts import Stack
from vdmini.models.registry import pipeline_denoiser
from vdmini.models.transformer import TransformerFamily
from vdmini.requests import SampleSettings

TEXT_TOKENS = 256
# Of the image, and what its prompt's template leaves of the text.
IMAGE_TOKENS = {"latent_concat": 288, "token_replace": 144}
IMAGE_TEXT_TOKENS = 252

# Source: diffusers' scripts/convert_hunyuan_video_to_diffusers.py. SkyReels V1 is HunyuanVideo, and has an image's
# latents beside the clip's (diffusers' HunyuanSkyreelsImageToVideoPipeline).
CONFIGS: dict[str, dict[str, Any]] = {
    "hunyuanvideo-i2v": {"image_condition_type": "token_replace"},
    "hunyuanvideo-i2v-33ch": {
        "in_channels": 33, "guidance_embeds": False, "image_condition_type": "latent_concat",
    },
    "skyreels-v1-i2v": {"in_channels": 32},
}  # fmt: skip

SINGLE_BLOCK_PARTS = ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp")


class HunyuanVideo(TransformerFamily):
    """Its guidance is embedded, at no extra cost; the second guidance is by a pass with the negative prompt."""

    name = "hunyuanvideo"
    cuts_text = True
    guides_apart = True
    batches_images = False
    configs: Mapping[str, Mapping[str, Any]] = CONFIGS
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

    def input_shapes(self, denoiser: nn.Module, size: ModelInput) -> dict[str, tuple[int, ...]]:
        config: Any = denoiser.config
        shapes = super().input_shapes(denoiser, size)
        shapes["pooled_projections"] = (size.batch, config.pooled_projection_dim)
        if config.image_condition_type is not None:
            tokens = IMAGE_TOKENS[config.image_condition_type] + IMAGE_TEXT_TOKENS
            shapes["encoder_hidden_states"] = (size.batch, tokens, config.text_embed_dim)
            shapes["encoder_attention_mask"] = (size.batch, tokens)
        return shapes | ({"guidance": (size.batch,)} if config.guidance_embeds else {})

    def images(self, denoiser: nn.Module) -> Images:
        """Always for one that is trained to see them."""
        config: Any = denoiser.config
        seen = config.image_condition_type is not None or config.in_channels != config.out_channels
        return "always" if seen else "never"

    def frames_to_ask(self, pipeline: DiffusionPipeline, frames: int) -> int:
        """Where the image's latents come beside the clip's with a mask, the pipeline cuts off its first four frames."""
        config: Any = pipeline_denoiser(pipeline).config
        return frames + 4 * (config.image_condition_type == "latent_concat")

    def passes_per_step(self, denoiser: nn.Module, settings: SampleSettings) -> int:
        """Two with a negative prompt and a scale for it, which SkyReels V1's pipeline has of its own."""
        config: Any = denoiser.config
        own = 6.0 if config.in_channels == 2 * config.out_channels else 1.0
        scale = own if settings.second_guidance is None else settings.second_guidance
        return 2 if settings.negative_prompt is not None and scale > 1 else 1

    def narrowed(self, denoiser: nn.Module, width: int) -> dict[str, Any]:
        config: Any = denoiser.config
        require_multiple(width, config.attention_head_dim)
        return {"num_attention_heads": width // config.attention_head_dim}


FAMILY = HunyuanVideo()
