"""Mochi's text-to-video family, whose last block ends the text stream and so cannot leave."""

from __future__ import annotations

from typing import Any

from diffusers.models.autoencoders.autoencoder_kl_mochi import AutoencoderKLMochi
from diffusers.models.transformers.transformer_mochi import MochiTransformer3DModel
from torch import nn

from vdmini.blocks import ModelInput
from vdmini.models.transformer import Stack, TransformerFamily
from vdmini.requests import SampleSettings
from vdmini.tasks.base import Task
from vdmini.tasks.flow import FlowTask


class Mochi(TransformerFamily):
    """Its network counts timesteps up to clean (diffusers' scripts/convert_mochi_to_diffusers.py)."""

    name = "mochi"
    denoiser_class = MochiTransformer3DModel
    vae_class = AutoencoderKLMochi
    stacks = (Stack("Block", "transformer_blocks", "num_layers", last="last_block"),)
    embeddings = ("patch_embed", "time_embed", "rope")
    output = ("norm_out", "proj_out")

    def default_task(self, denoiser: nn.Module) -> Task:
        return FlowTask(inverted=True)

    def default_input(self, denoiser: nn.Module) -> ModelInput:
        """One clip of 163 frames of 480x848 pixels, the published size."""
        return ModelInput(batch=1, frames=28, height=60, width=106)

    def input_shapes(self, denoiser: nn.Module, size: ModelInput) -> dict[str, tuple[int, ...]]:
        config: Any = denoiser.config
        return {
            "hidden_states": (size.batch, config.in_channels, size.frames, size.height, size.width),
            "timestep": (size.batch,),
            "encoder_hidden_states": (size.batch, config.max_sequence_length, config.text_embed_dim),
            "encoder_attention_mask": (size.batch, config.max_sequence_length),
        }

    def pipeline_options(self, settings: SampleSettings) -> dict[str, Any]:
        """None; raises ValueError for one step, which its half linear schedule does not divide into."""
        if settings.steps < 2:
            raise ValueError(f"this model takes 2 steps or more, not {settings.steps}: ask for more")
        return {}


FAMILY = Mochi()
