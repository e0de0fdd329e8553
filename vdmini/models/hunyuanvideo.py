"""HunyuanVideo's family: 20 blocks with a stream each for video and text, then 40 over both together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from diffusers.models.autoencoders.autoencoder_kl_hunyuan_video import AutoencoderKLHunyuanVideo
from diffusers.models.transformers.transformer_hunyuan_video import HunyuanVideoTransformer3DModel
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from numpy.typing import NDArray
from torch import Tensor, nn

from vdmini.blocks import ModelInput
from vdmini.models.transformer import Stack, TransformerFamily, meta_tensors, sample_prompts
from vdmini.requests import ClipRequest, SampleSettings
from vdmini.tasks.base import Task
from vdmini.tasks.flow import FlowTask

NAME = "hunyuanvideo"
TEXT_TOKENS = 256

# Source: diffusers' scripts/convert_hunyuan_video_to_diffusers.py, which builds the class with its defaults.
CONFIGS: dict[str, dict[str, Any]] = {
    "hunyuanvideo": {
        "in_channels": 16,
        "out_channels": 16,
        "num_attention_heads": 24,
        "attention_head_dim": 128,
        "num_layers": 20,
        "num_single_layers": 40,
        "num_refiner_layers": 2,
        "mlp_ratio": 4.0,
        "patch_size": 2,
        "patch_size_t": 1,
        "qk_norm": "rms_norm",
        "guidance_embeds": True,
        "text_embed_dim": 4096,
        "pooled_projection_dim": 768,
        "rope_theta": 256.0,
        "rope_axes_dim": (16, 56, 56),
        "image_condition_type": None,
    },
}

SINGLE_BLOCK_PARTS = ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp")


def split_single_blocks(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
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


FAMILY = TransformerFamily(
    denoiser_class=HunyuanVideoTransformer3DModel,
    configs=CONFIGS,
    stacks=(
        Stack("Dual", "transformer_blocks", "num_layers"),
        Stack("Single", "single_transformer_blocks", "num_single_layers"),
    ),
    embeddings=("x_embedder", "context_embedder", "time_text_embed"),
    output=("norm_out", "proj_out"),
    prepare_original=split_single_blocks,
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
    """The denoiser and VAE of `hunyuanvideo` with random weights, on torch's current default device."""
    # The published VAE has the defaults of its class.
    return FAMILY.build(name), AutoencoderKLHunyuanVideo()


def default_task(denoiser: nn.Module) -> Task:
    """Rectified flow, shifted as its published scheduler is."""
    return FlowTask()


def default_input(denoiser: nn.Module) -> ModelInput:
    """One clip of 97 frames of 544x960 pixels, the smaller of the published sizes."""
    return ModelInput(batch=1, frames=25, height=68, width=120)


def example_inputs(denoiser: nn.Module, size: ModelInput) -> dict[str, Tensor]:
    """Keyword arguments of one forward pass at a size, with 256 text tokens, on the meta device: shapes only."""
    config: Any = denoiser.config
    shapes: dict[str, tuple[int, ...]] = {
        "hidden_states": (size.batch, config.in_channels, size.frames, size.height, size.width),
        "timestep": (size.batch,),
        "encoder_hidden_states": (size.batch, TEXT_TOKENS, config.text_embed_dim),
        "encoder_attention_mask": (size.batch, TEXT_TOKENS),
        "pooled_projections": (size.batch, config.pooled_projection_dim),
    }
    if config.guidance_embeds:
        shapes["guidance"] = (size.batch,)
    return meta_tensors(shapes)


def sample(
    pipeline: DiffusionPipeline, requests: Sequence[ClipRequest], settings: SampleSettings
) -> NDArray[np.float32]:
    """Draw each request's prompt: B T H W C float32 RGB in [0, 1]; `guidance` is embedded, at no extra cost."""
    run: Any = pipeline
    multiple = run.vae_scale_factor_spatial * run.transformer.config.patch_size
    return sample_prompts(pipeline, requests, settings, multiple=multiple, frame_stride=4)
