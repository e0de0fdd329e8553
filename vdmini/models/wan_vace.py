"""Wan-VACE: Wan with a second, shorter stack whose blocks turn a control video into hints for some of Wan's blocks."""

from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType
from typing import Any

from diffusers.models.transformers.transformer_wan_vace import WanVACETransformer3DModel
from torch import nn

from vdmini.blocks import ModelInput
from vdmini.models.parts import Beside, Stack
from vdmini.models.wan import SMALL, Wan


class WanVace(Wan):
    """A block leaves with the hint after it and the VACE block that makes this, and `vace_layers` is numbered anew.

    The first VACE block reads the video as well, which the class has at place 0 alone: it stays, with Wan's first.
    Sampling is from a prompt alone, without a control video.
    """

    name = "wan-vace"
    denoiser_class = WanVACETransformer3DModel
    # Source: diffusers' scripts/convert_wan_to_diffusers.py, Wan 2.2's made by alibaba-pai as well.
    configs = MappingProxyType({"wan2.1-vace-1.3b": {**SMALL, "vace_layers": [*range(0, 30, 2)]}})
    stacks = (Stack("Block", "blocks", "num_layers", first="first_block"),)
    beside = Beside("vace_blocks", hands_on="control_hidden_states")
    image_pipeline = None
    batches_prompts = False

    def places_beside(self, denoiser: nn.Module) -> Sequence[int]:
        config: Any = denoiser.config
        return sorted(config.vace_layers)

    def input_shapes(self, denoiser: nn.Module, size: ModelInput) -> dict[str, tuple[int, ...]]:
        """With a control video and its mask, in latents of as many frames."""
        config: Any = denoiser.config
        control = (size.batch, config.vace_in_channels, size.frames, size.height, size.width)
        return super().input_shapes(denoiser, size) | {"control_hidden_states": control}

    def student_options(self, teacher: nn.Module, kept: Sequence[str]) -> dict[str, Any]:
        places = [0, *(int(name.rpartition(".")[2]) for name in kept)]
        return {"vace_layers": [places.index(place) for place in self.places_beside(teacher) if place in places]}

    def feature_pairs(self, kept: Sequence[str], removed: Sequence[str]) -> list[tuple[str, str]]:
        """Each with itself: its hint comes between a block and those after it that it might answer for."""
        own = {student: teacher for teacher, student in self.student_names(kept, removed).items()}
        return [(student, own[student]) for student, _ in super().feature_pairs(kept, removed)]


FAMILY = WanVace()
