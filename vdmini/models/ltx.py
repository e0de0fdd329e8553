"""LTX-Video's text-to-video family, whose VAE makes one token of 32x32 pixels in 8 frames."""

from __future__ import annotations

from typing import Any

from diffusers.models.autoencoders.autoencoder_kl_ltx import AutoencoderKLLTXVideo
from diffusers.models.transformers.transformer_ltx import LTXVideoTransformer3DModel
from torch import nn

from vdmini.blocks import ModelInput
from vdmini.models.transformer import Stack, TransformerFamily
from vdmini.requests import SampleSettings
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
    embeddings = ("proj_in", "time_embed", "caption_projection")
    output = ("norm_out", "proj_out")

    def default_task(self, denoiser: nn.Module) -> Task:
        return FlowTask()

    def default_input(self, denoiser: nn.Module) -> ModelInput:
        """One clip of 161 frames of 512x704 pixels, the pipeline's default."""
        return ModelInput(batch=1, frames=21, height=16, width=22)

    def input_shapes(self, denoiser: nn.Module, size: ModelInput) -> dict[str, tuple[int, ...]]:
        config: Any = denoiser.config
        tokens = size.frames * size.height * size.width
        return {
            "hidden_states": (size.batch, tokens, config.in_channels),
            "timestep": (size.batch,),
            "encoder_hidden_states": (size.batch, TEXT_TOKENS, config.caption_channels),
            "encoder_attention_mask": (size.batch, TEXT_TOKENS),
            "video_coords": (size.batch, 3, tokens),
        }

    def pipeline_options(self, settings: SampleSettings) -> dict[str, Any]:
        """The denoiser is told `frames_per_second`; the pipeline's own default is 25."""
        return {"frame_rate": settings.frames_per_second}


FAMILY = LtxVideo()
