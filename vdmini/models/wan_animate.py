"""Wan2.2-Animate: Wan with an adapter after every fifth block, through which a video of a face moves a character."""

from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
from diffusers.models.transformers.transformer_wan_animate import WanAnimateTransformer3DModel
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from numpy.typing import NDArray
from torch import nn

from vdmini.blocks import ModelInput, Unit
from vdmini.models.family import Images
from vdmini.models.parts import Beside
from vdmini.models.wan import Wan
from vdmini.requests import ClipRequest, SampleSettings
from vdmini.tasks.flow import FlowTask


class WanAnimate(Wan):
    """The class knows an adapter's block by its place alone, so blocks leave in fives, each with one adapter."""

    name = "wan-animate"
    denoiser_class = WanAnimateTransformer3DModel
    # Source: diffusers' scripts/convert_wan_to_diffusers.py.
    configs = MappingProxyType({"wan2.2-animate-14b": {"added_kv_proj_dim": 5120}})
    beside = Beside("face_adapter")
    # The pipeline's default segment, 77 frames of 720x1280 pixels, after the character's image.
    published_size = (21, 90, 160)
    task = FlowTask(shift=5.0)

    def images(self, denoiser: nn.Module) -> Images:
        return "always"

    def places_beside(self, denoiser: nn.Module) -> Sequence[int]:
        config: Any = denoiser.config
        return range(0, config.num_layers, config.inject_face_latents_blocks)

    def input_shapes(self, denoiser: nn.Module, size: ModelInput) -> dict[str, tuple[int, ...]]:
        """With a video of poses in latents, and one of a face in pixels, for all frames but the image in front."""
        config: Any = denoiser.config
        frames, side = size.frames - 1, config.motion_encoder_size
        return super().input_shapes(denoiser, size) | {
            "pose_hidden_states": (size.batch, config.latent_channels, frames, size.height, size.width),
            "face_pixel_values": (size.batch, 3, 4 * frames - 3, side, side),
        }

    def units(self, denoiser: nn.Module) -> tuple[Unit, ...]:
        """Every adapter's block with those up to the next adapter's."""
        config: Any = denoiser.config
        names, count = [*self.blocks(denoiser)], config.inject_face_latents_blocks
        together = [tuple(names[place : place + count]) for place in self.places_beside(denoiser)]
        return tuple(Unit("+".join(blocks), blocks) for blocks in together)

    def sample(
        self, pipeline: DiffusionPipeline, requests: Sequence[ClipRequest], settings: SampleSettings
    ) -> NDArray[np.float32]:
        """Raises ValueError: a request has neither of the two videos that its pipeline takes."""
        raise ValueError(
            "this model animates a character by a video of poses and one of a face, which no suite has: call the"
            " pipeline itself, with pose_video and face_video"
        )


FAMILY = WanAnimate()
