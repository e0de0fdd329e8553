"""CogVideoX's text-to-video family, diffusion with v-prediction where its siblings match flows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from diffusers.models.autoencoders.autoencoder_kl_cogvideox import AutoencoderKLCogVideoX
from diffusers.models.transformers.cogvideox_transformer_3d import CogVideoXTransformer3DModel
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from numpy.typing import NDArray
from torch import Tensor, nn

from vdmini.blocks import ModelInput
from vdmini.errors import ModelLoadError
from vdmini.models.transformer import Stack, TransformerFamily, meta_tensors, sample_prompts
from vdmini.requests import ClipRequest, SampleSettings
from vdmini.tasks.base import Task
from vdmini.tasks.epsilon import EpsilonTask

NAME = "cogvideox"
# Discrete timesteps and v-prediction at zero terminal signal, so neither "flow" nor SVD's "edm".

# Source: diffusers' scripts/convert_cogvideox_to_diffusers.py; copies of the published config.json agree.
_SMALL: dict[str, Any] = {
    "num_attention_heads": 30,
    "attention_head_dim": 64,
    "in_channels": 16,
    "out_channels": 16,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "time_embed_dim": 512,
    "ofs_embed_dim": None,
    "text_embed_dim": 4096,
    "num_layers": 30,
    "dropout": 0.0,
    "attention_bias": True,
    "sample_width": 90,
    "sample_height": 60,
    "sample_frames": 49,
    "patch_size": 2,
    "patch_size_t": None,
    "temporal_compression_ratio": 4,
    "max_text_seq_length": 226,
    "activation_fn": "gelu-approximate",
    "timestep_activation_fn": "silu",
    "norm_elementwise_affine": True,
    "norm_eps": 1e-5,
    "spatial_interpolation_scale": 1.875,
    "temporal_interpolation_scale": 1.0,
    "use_rotary_positional_embeddings": False,
    "use_learned_positional_embeddings": False,
    "patch_bias": True,
}
CONFIGS: dict[str, dict[str, Any]] = {
    "cogvideox-2b": _SMALL,
    "cogvideox-5b": _SMALL | {"num_attention_heads": 48, "num_layers": 42, "use_rotary_positional_embeddings": True},
}
LATENT_SCALES = {"cogvideox-2b": 1.15258426, "cogvideox-5b": 0.7}

FAMILY = TransformerFamily(
    denoiser_class=CogVideoXTransformer3DModel,
    configs=CONFIGS,
    stacks=(Stack("Block", "transformer_blocks", "num_layers"),),
    embeddings=("patch_embed", "time_embedding"),
    output=("norm_final", "norm_out", "proj_out"),
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


def load_original(name: str, path: Path) -> nn.Module:
    """Raise ModelLoadError: diffusers has no converter of CogVideoX's original files that a program can call."""
    raise ModelLoadError(
        f"{path}: original checkpoints of {name!r} are not read: give its diffusers folder or hub id, or convert the"
        " file with scripts/convert_cogvideox_to_diffusers.py of diffusers' repository"
    )


def build_official(name: str) -> tuple[nn.Module, nn.Module]:
    """The denoiser and VAE of `cogvideox-2b` or `cogvideox-5b` with random weights, on torch's default device."""
    # But for the scale of the latents, the published VAEs have the defaults of their class.
    return FAMILY.build(name), AutoencoderKLCogVideoX(scaling_factor=LATENT_SCALES[name])


def default_task(denoiser: nn.Module) -> Task:
    """The velocity is predicted, down to no signal at all; the 2B model's schedule is shifted."""
    config: Any = denoiser.config
    shift = 1.0 if config.use_rotary_positional_embeddings else 3.0
    return EpsilonTask(prediction="v", zero_terminal_snr=True, snr_shift=shift)


def default_input(denoiser: nn.Module) -> ModelInput:
    """One clip of the model's own size: 49 frames of 480x720 pixels for the published ones."""
    config: Any = denoiser.config
    frames = (config.sample_frames - 1) // config.temporal_compression_ratio + 1
    return ModelInput(batch=1, frames=frames, height=config.sample_height, width=config.sample_width)


def example_inputs(denoiser: nn.Module, size: ModelInput) -> dict[str, Tensor]:
    """Keyword arguments of one forward pass at a size, with all text tokens, on the meta device: shapes only.

    The rotary embedding, without which the 5B model computes the same amount, is left out.
    """
    config: Any = denoiser.config
    return meta_tensors(
        {
            "hidden_states": (size.batch, size.frames, config.in_channels, size.height, size.width),
            "timestep": (size.batch,),
            "encoder_hidden_states": (size.batch, config.max_text_seq_length, config.text_embed_dim),
        }
    )


def sample(
    pipeline: DiffusionPipeline, requests: Sequence[ClipRequest], settings: SampleSettings
) -> NDArray[np.float32]:
    """Draw each request's prompt: B T H W C float32 RGB in [0, 1]; `guidance` above 1 runs the denoiser twice."""
    run: Any = pipeline
    multiple = run.vae_scale_factor_spatial * run.transformer.config.patch_size
    # The VAE makes four frames of a latent, but decodes latents in pairs: of an even number it makes others than asked.
    return sample_prompts(pipeline, requests, settings, multiple=multiple, frame_stride=8)
