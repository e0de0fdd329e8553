"""Cosmos's family: 1.0 by diffusion, Predict2 and 2.5 by flows over Wan's latents, from words or images."""

from __future__ import annotations

from types import MappingProxyType, SimpleNamespace
from typing import Any

import torch.nn.functional as functional
from diffusers.models.autoencoders.autoencoder_kl_cosmos import AutoencoderKLCosmos
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan
from diffusers.models.transformers import transformer_cosmos
from diffusers.models.transformers.transformer_cosmos import CosmosTransformer3DModel
from diffusers.utils.import_utils import is_torchvision_available
from torch import Tensor, nn

from vdmini.blocks import ModelInput
from vdmini.models.family import Images
from vdmini.models.parts import Stack
from vdmini.models.transformer import TransformerFamily
from vdmini.tasks.base import Task
from vdmini.tasks.edm import EdmTask
from vdmini.tasks.flow import FlowTask

TEXT_TOKENS = 512
MESSAGES = (
    ("system", "You are a helpful assistant who will provide prompts to an image generator."),
    ("user", "{}"),
)

# Source: diffusers' scripts/convert_cosmos_to_diffusers.py.
_14B = {"num_attention_heads": 40, "num_layers": 36}
_FROM_IMAGES = {"in_channels": 17}
_FROM_WORDS_2 = {"extra_pos_embed_type": None, "rope_scale": (1.0, 4.0, 4.0)}
_FROM_IMAGES_2 = {"extra_pos_embed_type": None, **_FROM_IMAGES}
_PREDICT2_5 = {
    **_FROM_IMAGES_2, "rope_scale": (1.0, 3.0, 3.0), "use_crossattn_projection": True,
    "crossattn_proj_in_channels": 100352, "encoder_hidden_states_channels": 1024,
}  # fmt: skip
CONFIGS: dict[str, dict[str, Any]] = {
    "cosmos-1.0-7b-video2world": _FROM_IMAGES,
    "cosmos-1.0-14b-text2world": {**_14B, "rope_scale": (2.0, 2.0, 2.0)},
    "cosmos-1.0-14b-video2world": {**_14B, "rope_scale": (2.0, 2.0, 2.0), **_FROM_IMAGES},
    "cosmos-predict2-2b-text2image": {**_FROM_WORDS_2, "num_attention_heads": 16},
    "cosmos-predict2-14b-text2image": {**_FROM_WORDS_2, **_14B},
    "cosmos-predict2-2b-video2world": {**_FROM_IMAGES_2, "num_attention_heads": 16, "rope_scale": (1.0, 3.0, 3.0)},
    "cosmos-predict2-14b-video2world": {**_FROM_IMAGES_2, **_14B, "rope_scale": (20 / 24, 2.0, 2.0)},
    "cosmos-predict2.5-2b": {**_PREDICT2_5, "num_attention_heads": 16},
    "cosmos-predict2.5-14b": {**_PREDICT2_5, **_14B},
}


class Cosmos(TransformerFamily):
    """Its pipelines want NVIDIA's guardrail for prompts and clips, the package `cosmos_guardrail`, to be loaded."""

    name = "cosmos"
    guides_apart = True
    denoiser_class = CosmosTransformer3DModel
    vae_class = AutoencoderKLCosmos
    configs = CONFIGS
    stacks = (Stack("Block", "transformer_blocks", "num_layers"),)
    batches_images = False
    texts = MappingProxyType({"encoder_hidden_states": (TEXT_TOKENS, "text_embed_dim")})
    # Version 2.5 reads a chat.
    chat = tuple({"role": role, "content": [{"type": "text", "text": text}]} for role, text in MESSAGES)

    def build_official(self, name: str) -> tuple[nn.Module, nn.Module]:
        denoiser, vae = super().build_official(name)
        return denoiser, vae if "1.0" in name else AutoencoderKLWan()

    def default_task(self, denoiser: nn.Module) -> Task:
        return EdmTask() if _is_first(denoiser) else FlowTask()

    def latent_compression(self, vae: Any) -> tuple[int, int]:
        if isinstance(vae, AutoencoderKLWan):
            return vae.config.scale_factor_temporal, vae.config.scale_factor_spatial
        return vae.config.temporal_compression_ratio, vae.config.spatial_compression_ratio

    def default_input(self, denoiser: nn.Module) -> ModelInput:
        """121 frames of 704x1280 pixels by 1.0's own VAE, 93 by Wan's; an image of 768x1360 where 2 has words alone."""
        if self.images(denoiser) == "never" and not _is_first(denoiser):
            return ModelInput(1, 1, 96, 170)
        return ModelInput(1, 16 if _is_first(denoiser) else 24, 88, 160)

    def input_shapes(self, denoiser: nn.Module, size: ModelInput) -> dict[str, tuple[int, ...]]:
        """What continues images has a channel for where they are: the first latent of a clip here."""
        config: Any = denoiser.config
        plane = (size.frames, size.height, size.width)
        shapes = super().input_shapes(denoiser, size)
        shapes |= {"hidden_states": (size.batch, config.out_channels, *plane), "padding_mask": (1, 1, *plane[1:])}
        if config.use_crossattn_projection:
            shapes["encoder_hidden_states"] = (size.batch, TEXT_TOKENS, config.crossattn_proj_in_channels)
        if config.in_channels > config.out_channels:
            shapes["condition_mask"] = (size.batch, config.in_channels - config.out_channels, *plane)
        return shapes

    def images(self, denoiser: nn.Module) -> Images:
        """Version 2.5 makes clips of words as well."""
        config: Any = denoiser.config
        if config.in_channels == config.out_channels:
            return "never"
        return "optional" if config.use_crossattn_projection else "always"


def _is_first(denoiser: nn.Module) -> bool:
    config: Any = denoiser.config
    return config.extra_pos_embed_type is not None


def _resize(mask: Tensor, size: list[int], interpolation: str) -> Tensor:
    return functional.interpolate(mask, size, mode=interpolation)


if not is_torchvision_available():
    # All that diffusers' class wants of torchvision: a mask of padding resized to the latents by nearest neighbours.
    transformer_cosmos.transforms = SimpleNamespace(
        functional=SimpleNamespace(resize=_resize), InterpolationMode=SimpleNamespace(NEAREST="nearest")
    )


FAMILY = Cosmos()
