"""VideoCrafter2's family: VideoCrafter2 and T2V-Turbo-v2, which draw clips from a text."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from numpy.typing import NDArray
from torch import nn

from vdmini.blocks import ModelInput
from vdmini.models import videocrafter_keys
from vdmini.models.narrow import channel_setting, require_all_channels
from vdmini.models.unet import STABLE_DIFFUSION_VAE, UNetFamily, settings_of, student_layout
from vdmini.models.videocrafter_unet import MID_BLOCK_TYPE, PAIR_PARTS, load_original, original_layout, pairs_of_stages
from vdmini.models.videocrafter_unet import VideoCrafterUNet as VideoCrafterUNet
from vdmini.requests import ClipRequest, SampleSettings
from vdmini.sample import draw_prompts, require_sides
from vdmini.tasks.base import Task
from vdmini.tasks.consistency import ConsistencyTask
from vdmini.tasks.epsilon import EpsilonTask

# T2V-Turbo-v2 embeds the guidance and the motion guidance it was distilled with.
TURBO_CONFIG: dict[str, Any] = {"time_cond_dim": 256, "motion_cond_dim": 256}

TEXT_TOKENS = 77
# The settings that decide no weight, and the one that does so in channel-pruned students alone.
UNDECIDED = ("sample_size", "num_frames", "original_blocks", "layer_channels")


class VideoCrafter(UNetFamily):
    """A network with guidance embeddings is T2V-Turbo-v2's, one without VideoCrafter2's."""

    name = "videocrafter2"
    classes = (VideoCrafterUNet,)
    pair_parts = PAIR_PARTS
    channel_class = VideoCrafterUNet
    # What the guidance projections write is added to sinusoids, which have one width.
    fixed_layers = ("conv_out", "time_cond_proj", "motion_cond_proj", "combine_proj")

    def build_official(self, name: str) -> tuple[nn.Module, nn.Module]:
        config = TURBO_CONFIG if name == "t2v-turbo-v2" else {}
        return VideoCrafterUNet(**config), AutoencoderKL(**STABLE_DIFFUSION_VAE)

    def load_original(self, name: str, path: Path) -> nn.Module:
        """Read VideoCrafter2's `model.ckpt` or T2V-Turbo-v2's `unet_mg.pt`, which say themselves what they are."""
        return load_original(path)

    def default_task(self, denoiser: nn.Module) -> Task:
        config: Any = denoiser.config
        return EpsilonTask(smallest_scale=0.7) if config.time_cond_dim is None else ConsistencyTask()

    def default_input(self, denoiser: nn.Module) -> ModelInput:
        """One clip of the model's own size: 16 frames of 40x64 latents for the published ones."""
        config: Any = denoiser.config
        height, width = config.sample_size
        return ModelInput(batch=1, frames=config.num_frames, height=height, width=width)

    def input_shapes(self, denoiser: nn.Module, size: ModelInput) -> dict[str, tuple[int, ...]]:
        config: Any = denoiser.config
        shapes: dict[str, tuple[int, ...]] = {
            "sample": (size.batch, config.in_channels, size.frames, size.height, size.width),
            "timestep": (size.batch,),
            "encoder_hidden_states": (size.batch, TEXT_TOKENS, config.cross_attention_dim),
            "fps": (size.batch,),
        }
        guidance = {"timestep_cond": config.time_cond_dim, "motion_cond": config.motion_cond_dim}
        return shapes | {name: (size.batch, width) for name, width in guidance.items() if width is not None}

    def passes_per_step(self, denoiser: nn.Module, settings: SampleSettings) -> int:
        config: Any = denoiser.config
        return 1 if settings.guidance == 1 or config.time_cond_dim is not None else 2

    def architecture(self, denoiser: nn.Module) -> dict[str, object]:
        config: Any = denoiser.config
        # One number for all stages and a list of the same numbers are the same architecture.
        settings = settings_of(VideoCrafterUNet, config) | {"layers_per_block": pairs_of_stages(denoiser)}
        return {name: value for name, value in settings.items() if name not in UNDECIDED} | channel_setting(denoiser)

    def entry(self, denoiser: nn.Module) -> dict[str, tuple[nn.Module, ...]]:
        net: Any = denoiser
        guidance = (net.time_cond_proj, net.motion_cond_proj, net.combine_proj)
        return {
            "embeddings": (*(module for module in guidance if module), net.time_embedding, net.fps_embedding),
            "conv_in": (net.conv_in, net.transformer_in),
        }

    def build_student(self, teacher: nn.Module, kept: Sequence[str], removed: Sequence[str]) -> nn.Module:
        """Raises PlanError when the kept blocks cannot be wired, and when blocks are to go after channels."""
        require_all_channels(teacher, removed)
        return VideoCrafterUNet(**_student_config(teacher, kept, removed))

    def sample(
        self, pipeline: DiffusionPipeline, requests: Sequence[ClipRequest], settings: SampleSettings
    ) -> NDArray[np.float32]:
        require_sides(settings, self.latent_compression(pipeline.vae)[1])
        return draw_prompts(pipeline, requests, settings, {"fps": settings.frames_per_second})


FAMILY = VideoCrafter()


def _student_config(teacher: nn.Module, kept: Sequence[str], removed: Sequence[str]) -> dict[str, Any]:
    layout = student_layout(kept, removed)
    stages = len(layout.layers)
    settings: Any = teacher.config
    config = settings_of(VideoCrafterUNet, settings)
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
