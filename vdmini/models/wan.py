"""Wan's family: Wan 2.1 and 2.2, from text or an image; a published model of two experts is one of them."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, cast

from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from torch import nn

from vdmini.blocks import ModelInput
from vdmini.models.family import Images, require_multiple
from vdmini.models.parts import Stack
from vdmini.models.registry import pipeline_denoiser
from vdmini.models.transformer import TransformerFamily
from vdmini.requests import SampleSettings
from vdmini.tasks.base import Task
from vdmini.tasks.flow import FlowTask

TEXT_TOKENS = 512
# What CLIP's ViT-H/14 makes of an image: a token for each of 16 x 16 patches, and one for the whole.
IMAGE_TOKENS = 257
# The channels of Wan 2.2's VAE, by which its 5B model is known.
WAN22_CHANNELS = 48
# Those of the embedded teacher's VAE, and how many tokens of a text it reads.
EMBEDDED_CHANNELS = 32
EMBEDDED_TEXT_TOKENS = 24

# Source: diffusers' scripts/convert_wan_to_diffusers.py.
SMALL = {"num_attention_heads": 12, "ffn_dim": 8960, "num_layers": 30}
FROM_IMAGE = {"in_channels": 36}
FROM_IMAGE_BY_CLIP = {**FROM_IMAGE, "image_dim": 1280, "added_kv_proj_dim": 5120}
CONFIGS: dict[str, dict[str, Any]] = {
    "wan2.1-t2v-1.3b": SMALL,
    "wan2.1-i2v-14b-480p": FROM_IMAGE_BY_CLIP,
    "wan2.1-i2v-14b-720p": FROM_IMAGE_BY_CLIP,
    "wan2.2-i2v-a14b": FROM_IMAGE,
    "wan2.2-ti2v-5b": {
        "num_attention_heads": 24, "ffn_dim": 14336, "num_layers": 30, "in_channels": 48, "out_channels": 48,
    },
}  # fmt: skip
MEANS = """
-0.2289 -0.0052 -0.1323 -0.2339 -0.2799 0.0174 0.1838 0.1557 -0.1382 0.0542 0.2813 0.0891 0.1570 -0.0098
0.0375 -0.1825 -0.2246 -0.1207 -0.0698 0.5109 0.2665 -0.2108 -0.2158 0.2502 -0.2055 -0.0322 0.1109 0.1567 -0.0729 0.0899
-0.2799 -0.1230 -0.0313 -0.1649 0.0117 0.0723 -0.2839 -0.2083 -0.0520 0.3748 0.0152 0.1957 0.1433 -0.2944 0.3573
-0.0548 -0.1681 -0.0667"""
DEVIATIONS = """
0.4765 1.0364 0.4514 1.1677 0.5313 0.4990 0.4818 0.5013 0.8158 1.0344 0.5894 1.0901 0.6885 0.6165
0.8454 0.4978 0.5759 0.3523 0.7135 0.6804 0.5833 1.4146 0.8986 0.5659 0.7069 0.5338 0.4889 0.4917 0.4069 0.4999
0.6866 0.4093 0.5709 0.6065 0.6415 0.4944 0.5726 1.2042 0.5458 1.6887 0.3971 1.0600 0.3943 0.5537 0.5444 0.4089
0.7468 0.7744"""
VAE_CONFIGS: dict[str, dict[str, Any]] = {
    "wan2.2-ti2v-5b": {
        "base_dim": 160, "decoder_base_dim": 256, "z_dim": 48, "is_residual": True, "in_channels": 12,
        "out_channels": 12, "patch_size": 2, "scale_factor_spatial": 16,
        "latents_mean": [*map(float, MEANS.split())], "latents_std": [*map(float, DEVIATIONS.split())],
    },
}  # fmt: skip


class Wan(TransformerFamily):
    """All but Wan 2.2's 5B model share the VAE of Wan 2.1; families of classes made from Wan's share most of this."""

    name = "wan"
    guides_apart = True
    denoiser_class = WanTransformer3DModel
    vae_class = AutoencoderKLWan
    configs: Mapping[str, Mapping[str, Any]] = CONFIGS
    vae_configs = VAE_CONFIGS
    stacks = (Stack("Block", "blocks", "num_layers"),)
    # 81 frames of 480x832 pixels, the pipeline's default.
    published_size = (21, 60, 104)
    # Shifted towards noise as its pipeline documents for 480p.
    task: Task = FlowTask(shift=3.0)
    texts = MappingProxyType({"encoder_hidden_states": (TEXT_TOKENS, "text_dim")})
    image_pipeline: str | None = "WanImageToVideoPipeline"
    batches_images = False

    def images(self, denoiser: nn.Module) -> Images:
        """Optional for the 5B model alone, which takes an image in the place of its first latent."""
        config: Any = denoiser.config
        if config.in_channels == WAN22_CHANNELS:
            return "optional"
        return "never" if config.in_channels == config.out_channels else "always"

    def default_task(self, denoiser: nn.Module) -> Task:
        """Rectified flow; the 5B model's is shifted as for 720p."""
        config: Any = denoiser.config
        return FlowTask(shift=5.0) if config.in_channels == WAN22_CHANNELS else self.task

    def default_input(self, denoiser: nn.Module) -> ModelInput:
        """One clip of the published size: for the 5B model 121 frames of 704x1280 pixels."""
        config: Any = denoiser.config
        own = {WAN22_CHANNELS: ModelInput(1, 31, 44, 80), EMBEDDED_CHANNELS: ModelInput(1, 9, 4, 4)}
        return own.get(config.in_channels) or super().default_input(denoiser)

    def text_tokens(self, pipeline: DiffusionPipeline) -> int:
        return EMBEDDED_TEXT_TOKENS if _is_embedded(pipeline_denoiser(pipeline)) else super().text_tokens(pipeline)

    def pipeline_options(self, denoiser: nn.Module, settings: SampleSettings) -> dict[str, Any]:
        """As few tokens of a text as the embedded teacher was trained with."""
        return {"max_sequence_length": EMBEDDED_TEXT_TOKENS} if _is_embedded(denoiser) else {}

    def clip_grid(self, pipeline: DiffusionPipeline) -> tuple[tuple[int, int], ...]:
        """As many latents of a clip as tokens take at once; of the embedded teacher three, of published ones one."""
        (_, frames), *sides = super().clip_grid(pipeline)
        at_once, _, _ = self.patch(pipeline_denoiser(pipeline))
        return (frames * (at_once - 1) + 1, frames * at_once), *sides

    def frames_to_ask(self, pipeline: DiffusionPipeline, frames: int) -> int:
        """Of a VAE that keeps every frame, as the embedded teacher's, the pipeline makes one more than asked for."""
        compression, _ = self.latent_compression(cast("Any", pipeline).vae)
        return frames - (compression == 1)

    def input_shapes(self, denoiser: nn.Module, size: ModelInput) -> dict[str, tuple[int, ...]]:
        """With what CLIP makes of an image, where the denoiser takes that."""
        config: Any = denoiser.config
        shapes = super().input_shapes(denoiser, size)
        if _is_embedded(denoiser):
            shapes["encoder_hidden_states"] = (size.batch, EMBEDDED_TEXT_TOKENS, config.text_dim)
        if config.get("image_dim") is not None:
            shapes["encoder_hidden_states_image"] = (size.batch, IMAGE_TOKENS, config.image_dim)
        return shapes

    def narrowed(self, denoiser: nn.Module, width: int) -> dict[str, Any]:
        config: Any = denoiser.config
        require_multiple(width, config.attention_head_dim)
        heads = width // config.attention_head_dim
        from_image = {"added_kv_proj_dim": width} if config.get("added_kv_proj_dim") is not None else {}
        ffn_dim = config.ffn_dim * heads // config.num_attention_heads
        return {"num_attention_heads": heads, "ffn_dim": ffn_dim, **from_image}


def _is_embedded(denoiser: nn.Module) -> bool:
    config: Any = denoiser.config
    return bool(config.in_channels == EMBEDDED_CHANNELS)


FAMILY = Wan()
