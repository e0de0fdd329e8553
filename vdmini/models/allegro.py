"""Allegro's family, whose VAE encodes and decodes overlapping cubes of a video, and nothing else."""

from __future__ import annotations

import math
from collections.abc import Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
from diffusers.models.autoencoders.autoencoder_kl_allegro import AutoencoderKLAllegro
from diffusers.models.transformers.transformer_allegro import AllegroTransformer3DModel
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from numpy.typing import NDArray
from torch import nn

from vdmini.models.parts import Stack
from vdmini.models.transformer import TransformerFamily
from vdmini.requests import ClipRequest, SampleSettings
from vdmini.tasks.base import Task
from vdmini.tasks.epsilon import EpsilonTask

TEXT_TOKENS = 512


class Allegro(TransformerFamily):
    """The published model has the defaults of its classes, which count 2.8 billion weights as its card does.

    Clips are made one by one: the VAE's cubes are of one clip.
    """

    name = "allegro"
    batches_prompts = False
    denoiser_class = AllegroTransformer3DModel
    vae_class = AutoencoderKLAllegro
    stacks = (Stack("Block", "transformer_blocks", "num_layers"),)
    # 88 frames of 720x1280 pixels.
    published_size = (22, 90, 160)
    texts = MappingProxyType({"encoder_hidden_states": (TEXT_TOKENS, "caption_channels")})
    masks = ("encoder_attention_mask",)

    def build_official(self, name: str) -> tuple[nn.Module, nn.Module]:
        denoiser, vae = super().build_official(name)
        _tiled(vae)
        return denoiser, vae

    def latent_compression(self, vae: Any) -> tuple[int, int]:
        return int(vae.config.temporal_compression_ratio), vae.spatial_compression_ratio

    def latent_frames(self, denoiser: nn.Module, frames: int, stride: int) -> int:
        if frames % stride:
            raise ValueError(f"this model makes {stride}k frames, not {frames}: give such a number")
        return frames // stride

    def clip_frames(self, denoiser: nn.Module, latents: int, stride: int) -> int:
        return latents * stride

    def default_task(self, denoiser: nn.Module) -> Task:
        return EpsilonTask(beta_schedule="linear", beta_start=0.0001, beta_end=0.02)

    def require_clip(self, pipeline: DiffusionPipeline, settings: SampleSettings) -> None:
        """Raise ValueError, with the nearest that works, for a clip that the VAE's cubes do not fill to its end."""
        run: Any = pipeline
        _, multiple = self.clip_steps(pipeline)
        steps = [run.vae.stride[0], *(math.lcm(stride, multiple) for stride in run.vae.stride[1:])]
        wanted = (settings.frames, settings.height, settings.width)
        frames, height, width = (
            cube + max(0, round((size - cube) / step)) * step
            for cube, step, size in zip(run.vae.kernel, steps, wanted, strict=True)
        )
        if (height, width) != wanted[1:]:
            raise ValueError(
                f"this model's VAE fills {run.vae.kernel[1]} + {steps[1]}k rows and {run.vae.kernel[2]} + {steps[2]}k"
                f" columns, not {settings.height}x{settings.width} pixels: ask for {height}x{width}"
            )
        if frames != settings.frames:
            raise ValueError(
                f"this model's VAE fills {run.vae.kernel[0]} + {steps[0]}k frames, not {settings.frames}: ask for"
                f" {frames} frames"
            )

    def pipeline_options(self, settings: SampleSettings) -> dict[str, Any]:
        """Cleaning captions wants packages that not all have, and its pipeline goes on without: clips would differ."""
        return {"clean_caption": False}

    def sample(
        self, pipeline: DiffusionPipeline, requests: Sequence[ClipRequest], settings: SampleSettings
    ) -> NDArray[np.float32]:
        run: Any = pipeline
        _tiled(run.vae)
        return super().sample(pipeline, requests, settings)


def _tiled(vae: Any) -> None:
    """Without tiles, diffusers' VAE decodes nothing."""
    vae.enable_tiling()


FAMILY = Allegro()
