"""LTX-Video's text-to-video family, whose VAE makes one token of 32x32 pixels in 8 frames."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from diffusers.models.autoencoders.autoencoder_kl_ltx import AutoencoderKLLTXVideo
from diffusers.models.transformers.transformer_ltx import LTXVideoTransformer3DModel
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from numpy.typing import NDArray
from torch import Tensor, nn

from vdmini.blocks import ModelInput
from vdmini.models.transformer import Stack, TransformerFamily, meta_tensors, sample_prompts
from vdmini.requests import ClipRequest, SampleSettings
from vdmini.tasks.base import Task
from vdmini.tasks.flow import FlowTask

NAME = "ltx"
TEXT_TOKENS = 128

# Source: diffusers' scripts/convert_ltx_to_diffusers.py, which builds the class with its defaults.
CONFIGS: dict[str, dict[str, Any]] = {
    "ltx-video-2b": {
        "in_channels": 128,
        "out_channels": 128,
        "patch_size": 1,
        "patch_size_t": 1,
        "num_attention_heads": 32,
        "attention_head_dim": 64,
        "cross_attention_dim": 2048,
        "num_layers": 28,
        "activation_fn": "gelu-approximate",
        "qk_norm": "rms_norm_across_heads",
        "norm_elementwise_affine": False,
        "norm_eps": 1e-6,
        "caption_channels": 4096,
        "attention_bias": True,
        "attention_out_bias": True,
    },
}

FAMILY = TransformerFamily(
    denoiser_class=LTXVideoTransformer3DModel,
    configs=CONFIGS,
    stacks=(Stack("Block", "transformer_blocks", "num_layers"),),
    embeddings=("proj_in", "time_embed", "caption_projection"),
    output=("norm_out", "proj_out"),
)

matches = FAMILY.matches
denoiser_classes = FAMILY.denoiser_classes
architecture = FAMILY.architecture
block_modules = FAMILY.block_modules
stage_modules = FAMILY.stage_modules
units = FAMILY.units
block_depth = FAMILY.block_depth
build_student = FAMILY.build_student
skip_wiring = FAMILY.skip_wiring
student_names = FAMILY.student_names
feature_pairs = FAMILY.feature_pairs
load_original = FAMILY.load_original


def build_official(name: str) -> tuple[nn.Module, nn.Module]:
    """The denoiser and VAE of `ltx-video-2b` with random weights, on torch's current default device."""
    # The VAE of version 0.9.0 has the defaults of its class (diffusers' scripts/convert_ltx_to_diffusers.py); later
    # versions share the denoiser, not the VAE.
    return FAMILY.build(name), AutoencoderKLLTXVideo()


def default_task(denoiser: nn.Module) -> Task:
    """Rectified flow."""
    return FlowTask()


def default_input(denoiser: nn.Module) -> ModelInput:
    """One clip of 161 frames of 512x704 pixels, the pipeline's default."""
    return ModelInput(batch=1, frames=21, height=16, width=22)


def example_inputs(denoiser: nn.Module, size: ModelInput) -> dict[str, Tensor]:
    """Keyword arguments of one forward pass at a size, with 128 text tokens, on the meta device: shapes only."""
    config: Any = denoiser.config
    tokens = size.frames * size.height * size.width
    return meta_tensors(
        {
            "hidden_states": (size.batch, tokens, config.in_channels),
            "timestep": (size.batch,),
            "encoder_hidden_states": (size.batch, TEXT_TOKENS, config.caption_channels),
            "encoder_attention_mask": (size.batch, TEXT_TOKENS),
            "video_coords": (size.batch, 3, tokens),
        }
    )


def sample(
    pipeline: DiffusionPipeline, requests: Sequence[ClipRequest], settings: SampleSettings
) -> NDArray[np.float32]:
    """Draw each request's prompt: B T H W C float32 RGB in [0, 1]; `guidance` above 1 runs the denoiser twice.

    The denoiser is told `frames_per_second`; the pipeline's own default is 25.
    """
    run: Any = pipeline
    multiple = run.vae_spatial_compression_ratio * run.transformer.config.patch_size
    rate = {"frame_rate": settings.frames_per_second}
    return sample_prompts(pipeline, requests, settings, multiple=multiple, frame_stride=8, options=rate)
