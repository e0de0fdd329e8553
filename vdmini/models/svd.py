"""Stable Video Diffusion's family: SVD, SVD-XT, AnimateLCM-SVD and SF-V."""

from __future__ import annotations

import inspect
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from diffusers.models.autoencoders.autoencoder_kl_temporal_decoder import AutoencoderKLTemporalDecoder
from diffusers.models.unets.unet_spatio_temporal_condition import UNetSpatioTemporalConditionModel
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from numpy.typing import NDArray
from torch import nn

from vdmini.blocks import ModelInput
from vdmini.models.family import Images
from vdmini.models.narrow import channel_setting, require_all_channels
from vdmini.models.svd_channels import VDMiniChannelPrunedUNetSpatioTemporal
from vdmini.models.svd_checkpoint import load_unet
from vdmini.models.svd_unet import MID_BLOCK_TYPE, NoMidBlock, VDMiniUNetSpatioTemporal
from vdmini.models.unet import UNetFamily, settings_of, student_layout
from vdmini.requests import ClipRequest, SampleSettings
from vdmini.sample import draw, require_sides
from vdmini.tasks.base import Task
from vdmini.tasks.edm import EdmTask

# What differs from the defaults of diffusers' classes.
SVD_UNET_CONFIG: dict[str, Any] = {"sample_size": 96, "num_frames": 14}
SVD_VAE_CONFIG: dict[str, Any] = {
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
    "sample_size": 768,
}


class StableVideoDiffusion(UNetFamily):
    """Students lack whole blocks, or channels of their layers."""

    name = "svd"
    classes = (UNetSpatioTemporalConditionModel, VDMiniUNetSpatioTemporal, VDMiniChannelPrunedUNetSpatioTemporal)
    pair_parts = ("resnets", "attentions")
    channel_class = VDMiniChannelPrunedUNetSpatioTemporal

    def build_official(self, name: str) -> tuple[nn.Module, nn.Module]:
        unet = UNetSpatioTemporalConditionModel(**_official_config(name))
        return unet, AutoencoderKLTemporalDecoder(**SVD_VAE_CONFIG)

    def load_original(self, name: str, path: Path) -> nn.Module:
        """Read a UNet's own .safetensors file, such as AnimateLCM-SVD's; raises ModelLoadError for any other."""
        return load_unet(path, _official_config(name))

    def default_task(self, denoiser: nn.Module) -> Task:
        """Multi-step diffusion in EDM's terms; a one-step student is trained by `SfvTask`."""
        return EdmTask()

    def images(self, denoiser: nn.Module) -> Images:
        return "always"

    def default_input(self, denoiser: nn.Module) -> ModelInput:
        """One clip of the model's own length: 72x128 latents for SVD's own sample size, else a square of its own."""
        config: Any = denoiser.config
        # SVD is published with sample_size 96, yet its pipeline samples 576x1024 pixels by default.
        published = config.sample_size in (None, SVD_UNET_CONFIG["sample_size"])
        height, width = (72, 128) if published else (config.sample_size, config.sample_size)
        return ModelInput(batch=1, frames=config.num_frames, height=height, width=width)

    def input_shapes(self, denoiser: nn.Module, size: ModelInput) -> dict[str, tuple[int, ...]]:
        config: Any = denoiser.config
        time_ids = config.projection_class_embeddings_input_dim // config.addition_time_embed_dim
        context = config.cross_attention_dim
        return {
            "sample": (size.batch, size.frames, config.in_channels, size.height, size.width),
            "timestep": (size.batch,),
            "encoder_hidden_states": (size.batch, 1, context if isinstance(context, int) else context[0]),
            "added_time_ids": (size.batch, time_ids),
        }

    def narrowed(self, denoiser: nn.Module, width: int) -> dict[str, Any]:
        channels = super().narrowed(denoiser, width)
        return {**channels, "num_attention_heads": tuple(each // 64 for each in channels["block_out_channels"])}

    def architecture(self, denoiser: nn.Module) -> dict[str, object]:
        # SVD and SVD-XT differ only in these two, which shape no weight: a plan for one fits the other.
        decides_nothing = ("sample_size", "num_frames")
        config: Any = denoiser.config
        names = [name for name in inspect.signature(VDMiniUNetSpatioTemporal).parameters if name not in decides_nothing]
        decided: dict[str, object] = {name: config.get(name, MID_BLOCK_TYPE) for name in names}
        return decided | channel_setting(denoiser)

    def entry(self, denoiser: nn.Module) -> dict[str, tuple[nn.Module, ...]]:
        net: Any = denoiser
        return {"embeddings": (net.time_embedding, net.add_embedding), "conv_in": (net.conv_in,)}

    def block_modules(self, denoiser: nn.Module) -> dict[str, tuple[nn.Module, ...]]:
        blocks = super().block_modules(denoiser)
        return {name: modules for name, modules in blocks.items() if not isinstance(modules[0], NoMidBlock)}

    def build_student(self, teacher: nn.Module, kept: Sequence[str], removed: Sequence[str]) -> nn.Module:
        """Raises PlanError when the kept blocks cannot be wired, and when blocks are to go after channels."""
        require_all_channels(teacher, removed)
        config, widths = _student_config(teacher, kept, removed), channel_setting(teacher)
        native = VDMiniChannelPrunedUNetSpatioTemporal if widths else VDMiniUNetSpatioTemporal
        return native(**config, **widths)

    def passes_per_step(self, denoiser: nn.Module, settings: SampleSettings) -> int:
        return 2 if settings.max_guidance > 1 else 1

    def sample(
        self, pipeline: DiffusionPipeline, requests: Sequence[ClipRequest], settings: SampleSettings
    ) -> NDArray[np.float32]:
        """Animate each request's image."""
        run: Any = pipeline
        # The pipeline asks for 8, whatever its VAE.
        require_sides(settings, math.lcm(8, run.vae_scale_factor))
        if settings.frames < 2:
            # Its guidance grows from the first frame to the last.
            raise ValueError(f"this model makes 2 frames or more, not {settings.frames}: ask for more")
        for name in ("negative_prompt", "second_guidance"):
            if getattr(settings, name) is not None:
                raise ValueError(f"this model reads no text, so it has no {name}: leave it out")
        options = {
            "image": [request.picture() for request in requests],
            "min_guidance_scale": settings.min_guidance,
            "max_guidance_scale": settings.max_guidance,
            "fps": settings.frames_per_second,
            "motion_bucket_id": settings.motion_bucket,
            "noise_aug_strength": settings.noise_strength,
            "decode_chunk_size": settings.frames,
            "output_type": "np",
        }
        return draw(pipeline, requests, settings, options)


FAMILY = StableVideoDiffusion()


def _official_config(name: str) -> dict[str, Any]:
    return SVD_UNET_CONFIG | ({"num_frames": 25} if name == "svd-xt" else {})


def _student_config(teacher: nn.Module, kept: Sequence[str], removed: Sequence[str]) -> dict[str, Any]:
    layout = student_layout(kept, removed)
    stages = len(layout.layers)
    settings: Any = teacher.config
    config = settings_of(UNetSpatioTemporalConditionModel, settings)
    for name in (
        "block_out_channels",
        "cross_attention_dim",
        "down_block_types",
        "num_attention_heads",
        "transformer_layers_per_block",
    ):
        if not isinstance(config[name], int):
            config[name] = config[name][:stages]
    config["up_block_types"] = config["up_block_types"][layout.dropped_stages :]
    config["layers_per_block"] = list(layout.layers)
    config["mid_block_type"] = MID_BLOCK_TYPE if layout.mid else None
    return config
