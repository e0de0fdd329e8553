"""SANA-Video's family: linear attention over Wan's latents at 480p, or over LTX-2's at 720p."""

from __future__ import annotations

import math
from types import MappingProxyType
from typing import Any

from diffusers.models.autoencoders.autoencoder_kl_ltx2 import AutoencoderKLLTX2Video
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan
from diffusers.models.transformers.transformer_sana_video import SanaVideoTransformer3DModel
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from torch import nn

from vdmini.blocks import ModelInput
from vdmini.models import ltx2
from vdmini.models.parts import Stack
from vdmini.models.transformer import TransformerFamily
from vdmini.requests import SampleSettings
from vdmini.tasks.flow import FlowTask

# The first token and those that end the text: the instructions between them are read and left out.
TEXT_TOKENS = 300


class SanaVideo(TransformerFamily):
    """Clips are made of the size asked for: its pipeline would make the nearest of its own sizes, and then stretch."""

    name = "sana-video"
    denoiser_class = SanaVideoTransformer3DModel
    vae_class = AutoencoderKLWan
    # Source: diffusers' scripts/convert_sana_video_to_diffusers.py.
    configs = MappingProxyType({
        "sana-video-2b-480p": {"mlp_ratio": 3.0},
        "sana-video-2b-720p": {
            "mlp_ratio": 3.0, "in_channels": 128, "out_channels": 128, "sample_size": 22, "patch_size": (1, 1, 1),
        },
    })  # fmt: skip
    stacks = (Stack("Block", "transformer_blocks", "num_layers"),)
    texts = MappingProxyType({"encoder_hidden_states": (TEXT_TOKENS, "caption_channels")})
    task = FlowTask(shift=8.0)
    masks = ("encoder_attention_mask",)
    image_pipeline = "SanaImageToVideoPipeline"
    batches_images = False

    def build_official(self, name: str) -> tuple[nn.Module, nn.Module]:
        denoiser, vae = super().build_official(name)
        return denoiser, vae if "480p" in name else AutoencoderKLLTX2Video(**ltx2.VAE_CONFIGS["ltx-2"])

    def default_input(self, denoiser: nn.Module) -> ModelInput:
        """81 frames of 480x832 pixels, or of 704x1280, by the VAE that the latents are of."""
        config: Any = denoiser.config
        return ModelInput(1, 21, 60, 104) if config.sample_size == 30 else ModelInput(1, 11, 22, 40)

    def clip_steps(self, pipeline: DiffusionPipeline) -> tuple[int, int]:
        """Its pipeline wants sides that divide by 32, whatever its VAE."""
        frames, pixels = super().clip_steps(pipeline)
        return frames, math.lcm(pixels, 32)

    def pipeline_options(self, denoiser: nn.Module, settings: SampleSettings) -> dict[str, Any]:
        return {"use_resolution_binning": False}


FAMILY = SanaVideo()
