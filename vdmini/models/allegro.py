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
from vdmini.tasks.epsilon import EpsilonTask

TEXT_TOKENS = 512


class Allegro(TransformerFamily):
    """The published model has the defaults of its classes, which count 2.8 billion weights as its card does.

    Clips are made one by one: the VAE's cubes are of one clip. Without these tiles it makes nothing.
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
    task = EpsilonTask(beta_schedule="linear", beta_start=0.0001, beta_end=0.02)

    def build_official(self, name: str) -> tuple[nn.Module, nn.Module]:
        denoiser, vae = super().build_official(name)
        tiled: Any = vae
        tiled.enable_tiling()
        return denoiser, vae

    def latent_frames(self, denoiser: nn.Module, frames: int, stride: int) -> int:
        if frames % stride:
            raise ValueError(f"this model makes {stride}k frames, not {frames}: give such a number")
        return frames // stride

    def clip_frames(self, denoiser: nn.Module, latents: int, stride: int) -> int:
        return latents * stride

    def clip_grid(self, pipeline: DiffusionPipeline) -> tuple[tuple[int, int], ...]:
        """Where the VAE's cubes end; what they do not fill would stay empty."""
        run: Any = pipeline
        _, pixels = self.clip_steps(pipeline)
        frames, height, width = run.vae.stride
        return tuple(zip(run.vae.kernel, (frames, math.lcm(height, pixels), math.lcm(width, pixels)), strict=True))

    def pipeline_options(self, denoiser: nn.Module, settings: SampleSettings) -> dict[str, Any]:
        """Cleaning captions wants packages that not all have, and its pipeline goes on without: clips would differ."""
        return {"clean_caption": False}

    def sample(
        self, pipeline: DiffusionPipeline, requests: Sequence[ClipRequest], settings: SampleSettings
    ) -> NDArray[np.float32]:
        run: Any = pipeline
        run.vae.enable_tiling()
        return super().sample(pipeline, requests, settings)


FAMILY = Allegro()
