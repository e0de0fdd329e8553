"""Helios: Wan's blocks over a chunk of frames and, ever more coarsely, the frames before it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
from diffusers.models.transformers.transformer_helios import HeliosTransformer3DModel
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from numpy.typing import NDArray
from torch import nn

from vdmini.blocks import ModelInput
from vdmini.models.family import Images
from vdmini.models.wan import Wan
from vdmini.requests import ClipRequest, SampleSettings
from vdmini.tasks.flow import FlowTask

# Frames that the pipeline makes at once, and latents of the past by how coarsely they are read.
CHUNK_FRAMES = 33
HISTORY = {"short": 2, "mid": 2, "long": 16}


class Helios(Wan):
    """Sampled from text or an image, which stands before the first chunk, with noise."""

    name = "helios"
    denoiser_class = HeliosTransformer3DModel
    # Helios-Base has the defaults of its class, after its repository's training settings; diffusers has no script.
    configs: Mapping[str, Mapping[str, Any]] = MappingProxyType({})
    # A chunk of 384x640 pixels, the pipeline's default.
    published_size = (9, 48, 80)
    # As its pipeline shifts a chunk of that size, of 8,640 tokens.
    task = FlowTask(shift=math.exp(1.92))
    image_pipeline = "HeliosPipeline"

    def images(self, denoiser: nn.Module) -> Images:
        return "optional"

    def input_shapes(self, denoiser: nn.Module, size: ModelInput) -> dict[str, tuple[int, ...]]:
        """With the latents of the past, and the places of all in time."""
        config: Any = denoiser.config
        shapes = super().input_shapes(denoiser, size) | {"indices_hidden_states": (size.batch, size.frames)}
        for name, frames in HISTORY.items():
            shapes[f"indices_latents_history_{name}"] = (size.batch, frames)
            shapes[f"latents_history_{name}"] = (size.batch, config.in_channels, frames, size.height, size.width)
        return shapes

    def passes_per_step(self, denoiser: nn.Module, settings: SampleSettings) -> int:
        """Those of every chunk."""
        return super().passes_per_step(denoiser, settings) * math.ceil(settings.frames / CHUNK_FRAMES)

    def sample(
        self, pipeline: DiffusionPipeline, requests: Sequence[ClipRequest], settings: SampleSettings
    ) -> NDArray[np.float32]:
        """The first frames of what its pipeline makes, which is whole chunks."""
        return super().sample(pipeline, requests, settings)[:, : settings.frames]


FAMILY = Helios()
