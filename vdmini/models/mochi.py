"""Mochi's text-to-video family, whose last block ends the text stream and so cannot leave."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from diffusers.models.autoencoders.autoencoder_kl_mochi import AutoencoderKLMochi
from diffusers.models.transformers.transformer_mochi import MochiTransformer3DModel
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from numpy.typing import NDArray
from torch import Tensor, nn

from vdmini.blocks import ModelInput
from vdmini.models.transformer import Stack, TransformerFamily, meta_tensors, sample_prompts
from vdmini.requests import ClipRequest, SampleSettings
from vdmini.tasks.base import Task
from vdmini.tasks.flow import FlowTask

NAME = "mochi"

# Source: diffusers' scripts/convert_mochi_to_diffusers.py, which builds the class with its defaults.
CONFIGS: dict[str, dict[str, Any]] = {
    "mochi-1-preview": {
        "patch_size": 2,
        "num_attention_heads": 24,
        "attention_head_dim": 128,
        "num_layers": 48,
        "pooled_projection_dim": 1536,
        "in_channels": 12,
        "out_channels": None,
        "qk_norm": "rms_norm",
        "text_embed_dim": 4096,
        "time_embed_dim": 256,
        "activation_fn": "swiglu",
        "max_sequence_length": 256,
    },
}

FAMILY = TransformerFamily(
    denoiser_class=MochiTransformer3DModel,
    configs=CONFIGS,
    stacks=(Stack("Block", "transformer_blocks", "num_layers", last="last_block"),),
    embeddings=("patch_embed", "time_embed", "rope"),
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
    """The denoiser and VAE of `mochi-1-preview` with random weights, on torch's current default device."""
    # The published VAE has the defaults of its class.
    return FAMILY.build(name), AutoencoderKLMochi()


def default_task(denoiser: nn.Module) -> Task:
    """Rectified flow; its network counts timesteps up to clean."""
    return FlowTask(inverted=True)


def default_input(denoiser: nn.Module) -> ModelInput:
    """One clip of 163 frames of 480x848 pixels, the published size."""
    return ModelInput(batch=1, frames=28, height=60, width=106)


def example_inputs(denoiser: nn.Module, size: ModelInput) -> dict[str, Tensor]:
    """Keyword arguments of one forward pass at a size, with all text tokens, on the meta device: shapes only."""
    config: Any = denoiser.config
    return meta_tensors(
        {
            "hidden_states": (size.batch, config.in_channels, size.frames, size.height, size.width),
            "timestep": (size.batch,),
            "encoder_hidden_states": (size.batch, config.max_sequence_length, config.text_embed_dim),
            "encoder_attention_mask": (size.batch, config.max_sequence_length),
        }
    )


def sample(
    pipeline: DiffusionPipeline, requests: Sequence[ClipRequest], settings: SampleSettings
) -> NDArray[np.float32]:
    """Draw each request's prompt: B T H W C float32 RGB in [0, 1]; `guidance` above 1 runs the denoiser twice."""
    run: Any = pipeline
    if settings.steps < 2:
        # Half of its schedule is linear, which one step does not divide into.
        raise ValueError(f"this model takes 2 steps or more, not {settings.steps}: ask for more")
    multiple = run.vae_spatial_scale_factor * run.transformer.config.patch_size
    return sample_prompts(pipeline, requests, settings, multiple=multiple, frame_stride=6)
