"""VideoCrafter2's family: VideoCrafter2 and T2V-Turbo-v2, which draw clips from a text."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from numpy.typing import NDArray
from torch import Tensor, nn

from vdmini.blocks import ModelInput, Unit, prunable_names
from vdmini.models import unet, videocrafter_keys, videocrafter_unet
from vdmini.models.videocrafter_unet import (
    MID_BLOCK_TYPE,
    PAIR_PARTS,
    original_layout,
    pairs_of_stages,
)
from vdmini.models.videocrafter_unet import (
    VideoCrafterUNet as VideoCrafterUNet,
)
from vdmini.requests import ClipRequest, SampleSettings
from vdmini.sample import require_sides
from vdmini.tasks.base import Task
from vdmini.tasks.consistency import ConsistencyTask
from vdmini.tasks.epsilon import EpsilonTask

NAME = "videocrafter2"

# T2V-Turbo-v2 embeds the guidance and the motion guidance it was distilled with.
TURBO_CONFIG: dict[str, Any] = {"time_cond_dim": 256, "motion_cond_dim": 256}

# Stable Diffusion's VAE, which knows single frames.
VAE_CONFIG: dict[str, Any] = {
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
    "latent_channels": 4,
    "sample_size": 512,
    "scaling_factor": 0.18215,
}

TEXT_TOKENS = 77

# The settings that decide a network's weights.
SETTINGS = (
    "in_channels",
    "out_channels",
    "down_block_types",
    "up_block_types",
    "block_out_channels",
    "norm_num_groups",
    "cross_attention_dim",
    "attention_head_dim",
    "time_cond_dim",
    "motion_cond_dim",
    "mid_block_type",
)


def matches(denoiser: nn.Module) -> bool:
    """Whether a denoiser belongs to this family, as teacher or as student."""
    return isinstance(denoiser, VideoCrafterUNet)


def build_official(name: str) -> tuple[nn.Module, nn.Module]:
    """The denoiser and VAE of `videocrafter2` or `t2v-turbo-v2` with random weights, on torch's default device."""
    return VideoCrafterUNet(**(TURBO_CONFIG if name == "t2v-turbo-v2" else {})), AutoencoderKL(**VAE_CONFIG)


def load_original(name: str, path: Path) -> nn.Module:
    """The denoiser of VideoCrafter2's `model.ckpt` or T2V-Turbo-v2's `unet_mg.pt`, which say themselves what they are.

    Raises ModelLoadError for any other file.
    """
    return videocrafter_unet.load_original(path)


def denoiser_classes() -> dict[str, type[nn.Module]]:
    """The denoiser classes of this family by the name that a config.json gives them."""
    return {VideoCrafterUNet.__name__: VideoCrafterUNet}


def default_task(denoiser: nn.Module) -> Task:
    """The consistency task for a network that embeds its guidance, T2V-Turbo-v2; else VideoCrafter2's own."""
    config: Any = denoiser.config
    return EpsilonTask(smallest_scale=0.7) if config.time_cond_dim is None else ConsistencyTask()


def default_input(denoiser: nn.Module) -> ModelInput:
    """One clip of the model's own size: 16 frames of 40x64 latents for the published ones."""
    config: Any = denoiser.config
    height, width = config.sample_size
    return ModelInput(batch=1, frames=config.num_frames, height=height, width=width)


def example_inputs(denoiser: nn.Module, size: ModelInput) -> dict[str, Tensor]:
    """Keyword arguments of one forward pass at a size, on the meta device: shapes only."""
    config: Any = denoiser.config
    shapes: dict[str, tuple[int, ...]] = {
        "sample": (size.batch, config.in_channels, size.frames, size.height, size.width),
        "timestep": (size.batch,),
        "encoder_hidden_states": (size.batch, TEXT_TOKENS, config.cross_attention_dim),
        "fps": (size.batch,),
    }
    for name, width in (("timestep_cond", config.time_cond_dim), ("motion_cond", config.motion_cond_dim)):
        if width is not None:
            shapes[name] = (size.batch, width)
    return {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}


def architecture(denoiser: nn.Module) -> dict[str, object]:
    """The part of a denoiser's configuration that decides its weights: what a plan identifies its teacher by."""
    config: Any = denoiser.config
    # One number for all stages and a list of the same numbers are the same architecture.
    return {name: config[name] for name in SETTINGS} | {"layers_per_block": pairs_of_stages(denoiser)}


def block_modules(denoiser: nn.Module) -> dict[str, tuple[nn.Module, ...]]:
    """The submodules of every block in the order they run; those outside the stages included, so none is left over."""
    net: Any = denoiser
    guidance = (net.time_cond_proj, net.motion_cond_proj, net.combine_proj)
    blocks: dict[str, tuple[nn.Module, ...]] = {
        "embeddings": (*(module for module in guidance if module), net.time_embedding, net.fps_embedding),
        "conv_in": (net.conv_in, net.transformer_in),
    }
    for name, stage in stage_modules(denoiser).items():
        blocks |= {"Mid": (stage,)} if name == "Mid" else unet.stage_blocks(name, stage, PAIR_PARTS)
    blocks["conv_out"] = (net.conv_norm_out, net.conv_out)
    return blocks


def units(denoiser: nn.Module) -> tuple[Unit, ...]:
    """The smallest removals that leave a UNet which can be wired."""
    config: Any = denoiser.config
    prunable = prunable_names(block_modules(denoiser), stage_modules(denoiser))
    return unet.units(prunable, config.block_out_channels)


def block_depth(denoiser: nn.Module, block: str) -> int:
    """Depth of a block: 0 at the input and output, the number of resolutions for the middle block."""
    return unet.depth_of(block, len(pairs_of_stages(denoiser)))


def build_student(teacher: nn.Module, kept: Sequence[str], removed: Sequence[str]) -> nn.Module:
    """The student's network for the blocks kept of a teacher, with its own random weights.

    Raises PlanError when the kept blocks cannot be wired into a UNet.
    """
    student: nn.Module = VideoCrafterUNet(**student_config(teacher, kept, removed))
    return student


def student_config(teacher: nn.Module, kept: Sequence[str], removed: Sequence[str]) -> dict[str, Any]:
    """Constructor arguments of `VideoCrafterUNet` for the blocks kept of a teacher.

    Raises PlanError when the kept blocks cannot be wired into a UNet.
    """
    layout = unet.student_layout(kept, removed)
    stages = len(layout.layers)
    settings: Any = teacher.config
    config: dict[str, Any] = {name: settings[name] for name in (*SETTINGS, "sample_size", "num_frames")}
    config["down_block_types"] = config["down_block_types"][:stages]
    config["up_block_types"] = config["up_block_types"][layout.dropped_stages :]
    config["block_out_channels"] = config["block_out_channels"][:stages]
    config["layers_per_block"] = list(layout.layers)
    config["mid_block_type"] = MID_BLOCK_TYPE if layout.mid else None
    config["original_blocks"] = _original_blocks(teacher, kept)
    return config


def _original_blocks(teacher: nn.Module, kept: Sequence[str]) -> list[list[int]]:
    """The original's numbers of the input and output blocks that a student keeps."""
    original = original_layout(teacher)
    named = (
        (videocrafter_keys.input_names(original.layers), original.inputs),
        (videocrafter_keys.output_names(original.layers), original.outputs),
    )
    return [
        [number for name, number in zip(names, numbers, strict=True) if name in ("conv_in", *kept)]
        for names, numbers in named
    ]


def encoder_features(
    denoiser: nn.Module,
    sample: Tensor,
    timestep: Tensor,
    encoder_hidden_states: Tensor,
    fps: Tensor | float = 16,
    timestep_cond: Tensor | None = None,
    motion_cond: Tensor | None = None,
) -> list[Tensor]:
    """The output of each down stage, (B T) C H W, without running the rest: what a discriminator's heads look at.

    Takes the denoiser's own inputs: B C T H W latents, B timesteps, B N E context, B frame rates and the guidance
    embeddings.
    """
    net: Any = denoiser
    embedding, context = net.conditions(sample, timestep, encoder_hidden_states, fps, timestep_cond, motion_cond)
    features: list[Tensor] = net.encode(sample, embedding, context)[0]
    return features


def sample(
    pipeline: DiffusionPipeline, requests: Sequence[ClipRequest], settings: SampleSettings
) -> NDArray[np.float32]:
    """Draw each request's prompt: B T H W C float32 RGB in [0, 1]; raises ValueError for a size it cannot make."""
    run: Any = pipeline
    require_sides(settings, 2 ** (len(run.vae.config.block_out_channels) - 1))
    return np.asarray(
        run(
            prompt=[request.text() for request in requests],
            generator=[request.generator() for request in requests],
            height=settings.height,
            width=settings.width,
            num_frames=settings.frames,
            num_inference_steps=settings.steps,
            guidance_scale=settings.guidance,
            fps=settings.frames_per_second,
        ).frames
    )


stage_modules = unet.stage_modules
skip_wiring = unet.skip_wiring
student_names = unet.student_names
feature_pairs = unet.feature_pairs
