"""Wan's text-to-video family: Wan 2.1, and each of the two experts of Wan 2.2."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from numpy.typing import NDArray
from torch import Tensor, nn

from vdmini.blocks import ModelInput
from vdmini.models.transformer import Stack, TransformerFamily, meta_tensors, sample_prompts
from vdmini.requests import ClipRequest, SampleSettings
from vdmini.tasks.base import Task
from vdmini.tasks.flow import FlowTask

NAME = "wan"
TEXT_TOKENS = 512

# Source: diffusers' scripts/convert_wan_to_diffusers.py (Wan-T2V-1.3B, Wan-T2V-14B, Wan2.2-T2V-A14B).
_LARGE: dict[str, Any] = {
    "patch_size": (1, 2, 2),
    "num_attention_heads": 40,
    "attention_head_dim": 128,
    "in_channels": 16,
    "out_channels": 16,
    "text_dim": 4096,
    "freq_dim": 256,
    "ffn_dim": 13824,
    "num_layers": 40,
    "cross_attn_norm": True,
    "qk_norm": "rms_norm_across_heads",
    "eps": 1e-6,
    "image_dim": None,
    "added_kv_proj_dim": None,
    "rope_max_seq_len": 1024,
    "pos_embed_seq_len": None,
}
CONFIGS: dict[str, dict[str, Any]] = {
    "wan2.1-t2v-1.3b": _LARGE | {"num_attention_heads": 12, "ffn_dim": 8960, "num_layers": 30},
    "wan2.1-t2v-14b": _LARGE,
    # Two experts of this configuration, one for high noise and one for low.
    "wan2.2-t2v-a14b": _LARGE,
}

FAMILY = TransformerFamily(
    denoiser_class=WanTransformer3DModel,
    configs=CONFIGS,
    stacks=(Stack("Block", "blocks", "num_layers"),),
    embeddings=("rope", "patch_embedding", "condition_embedder"),
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
    """The denoiser (of Wan 2.2, one expert) and VAE of a published model with random weights, on the default device."""
    # The published VAE, that of Wan 2.1 in all of these, has the defaults of its class.
    return FAMILY.build(name), AutoencoderKLWan()


def default_task(denoiser: nn.Module) -> Task:
    """Rectified flow, shifted as its pipeline documents for 480p."""
    return FlowTask(shift=3.0)


def default_input(denoiser: nn.Module) -> ModelInput:
    """One clip of 81 frames of 480x832 pixels, the pipeline's default."""
    return ModelInput(batch=1, frames=21, height=60, width=104)


def example_inputs(denoiser: nn.Module, size: ModelInput) -> dict[str, Tensor]:
    """Keyword arguments of one forward pass at a size, with 512 text tokens, on the meta device: shapes only."""
    config: Any = denoiser.config
    return meta_tensors(
        {
            "hidden_states": (size.batch, config.in_channels, size.frames, size.height, size.width),
            "timestep": (size.batch,),
            "encoder_hidden_states": (size.batch, TEXT_TOKENS, config.text_dim),
        }
    )


def sample(
    pipeline: DiffusionPipeline, requests: Sequence[ClipRequest], settings: SampleSettings
) -> NDArray[np.float32]:
    """Draw each request's prompt: B T H W C float32 RGB in [0, 1]; `guidance` above 1 runs the denoiser twice."""
    run: Any = pipeline
    multiple = run.vae_scale_factor_spatial * max(run.transformer.config.patch_size[1:])
    return sample_prompts(pipeline, requests, settings, multiple=multiple, frame_stride=4)
