"""Latte's family: a block over each frame, then one over each place's frames, and so on in turn."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.transformers.latte_transformer_3d import LatteTransformer3DModel
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from torch import nn

from vdmini.blocks import ModelInput
from vdmini.models.parts import Stack
from vdmini.models.registry import pipeline_denoiser
from vdmini.models.transformer import TransformerFamily
from vdmini.models.unet import STABLE_DIFFUSION_VAE
from vdmini.requests import SampleSettings
from vdmini.tasks.epsilon import EpsilonTask

TEXT_TOKENS = 120


class Latte(TransformerFamily):
    """Its VAE is an image's; a clip has as many frames as have their places embedded.

    Clips are made one by one: of a single prompt its pipeline cuts the padding, which of several it only blanks.
    """

    name = "latte"
    batches_prompts = False
    denoiser_class = LatteTransformer3DModel
    vae_class = AutoencoderKL
    # Source: transformer/config.json of maxin-cn/Latte-1.
    configs = MappingProxyType({
        "latte-1": {
            "num_attention_heads": 16, "attention_head_dim": 72, "in_channels": 4, "out_channels": 8,
            "num_layers": 28, "cross_attention_dim": 1152, "attention_bias": True, "patch_size": 2,
            "activation_fn": "gelu-approximate", "num_embeds_ada_norm": 1000, "norm_type": "ada_norm_single",
            "norm_elementwise_affine": False, "norm_eps": 1e-6, "caption_channels": 4096,
        },
    })  # fmt: skip
    vae_configs = MappingProxyType({"latte-1": STABLE_DIFFUSION_VAE})
    stacks = (
        # Between the first two, places in time are added.
        Stack("Spatial", "transformer_blocks", "num_layers", first="first_spatial"),
        Stack("Temporal", "temporal_transformer_blocks", "num_layers", first="first_temporal"),
    )
    task = EpsilonTask(beta_schedule="linear", beta_start=0.0001, beta_end=0.02)
    texts = MappingProxyType({"encoder_hidden_states": (TEXT_TOKENS, "caption_channels")})

    def latent_compression(self, vae: Any) -> tuple[int, int]:
        return 1, 2 ** (len(vae.config.block_out_channels) - 1)

    def default_input(self, denoiser: nn.Module) -> ModelInput:
        """The one size that it makes: 16 frames of 512x512 pixels for the published model."""
        config: Any = denoiser.config
        return ModelInput(1, config.video_length, config.sample_size, config.sample_size)

    def pipeline_options(self, denoiser: nn.Module, settings: SampleSettings) -> dict[str, Any]:
        """Cleaning captions wants packages that not all have, and its pipeline goes on without: clips would differ."""
        return {"clean_caption": False}

    def clip_grid(self, pipeline: DiffusionPipeline) -> tuple[tuple[int, int], ...]:
        _, *sides = super().clip_grid(pipeline)
        return (self.default_input(pipeline_denoiser(pipeline)).frames, 0), *sides


FAMILY = Latte()
