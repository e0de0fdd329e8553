"""How each family's training clips are encoded, and how they and their conditions are fed to its denoiser.

Videos are B T C H W here; a family's own layout stays inside its module.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

from vdmini.blocks import ModelInput
from vdmini.conditioning.base import EncodeSettings, TrainingClip
from vdmini.errors import ModelLoadError
from vdmini.models.family import Family
from vdmini.models.registry import family_of

if TYPE_CHECKING:
    from diffusers.pipelines.pipeline_utils import DiffusionPipeline
    from torch import Tensor, nn

# The families that can be distilled, each with its module in this package, which holds its `CONDITIONING`.
CONDITIONING = {
    "svd": "svd",
    "videocrafter2": "videocrafter",
    "animatediff": "animatediff",
    "hunyuanvideo": "hunyuanvideo",
    "wan": "wan",
    "cogvideox": "cogvideox",
    "ltx": "ltx",
    "mochi": "mochi",
}


class Conditioning(Protocol):
    """What a family's module must say, so that distilling need not know the family.

    `arguments` names the denoiser's argument for each condition that goes there as it is.
    """

    family: Family
    arguments: Mapping[str, str]

    @property
    def texts(self) -> tuple[str, ...]:
        """The conditions that `encode_prompt` gives."""
        return tuple(self.arguments)

    def encode_clip(
        self, pipeline: DiffusionPipeline, clip: TrainingClip, settings: EncodeSettings
    ) -> dict[str, Tensor]:
        """The clip's tensors by name, float32 on the CPU without a batch dimension.

        "latents" are T C H W in the denoiser's own scale; all others are conditions. Raises ValueError for a clip of
        a size that the model cannot take.
        """

    def encode_prompt(self, pipeline: DiffusionPipeline, prompt: str) -> dict[str, Tensor]:
        """The conditions that are a prompt's, as the pipeline makes them; none where guidance is not by text."""
        return {}

    def unconditional(self, pipeline: DiffusionPipeline) -> dict[str, Tensor] | None:
        """What `encode_prompt` makes of an empty prompt; None where that is nothing."""
        return self.encode_prompt(pipeline, "") or None

    def clip_shapes(self, denoiser: nn.Module, size: ModelInput) -> dict[str, tuple[int, ...]]:
        """The shapes of what `encode_clip` gives for latents of a size."""
        config: Any = denoiser.config
        shapes = self.family.input_shapes(denoiser, size)
        conditions = {name: shapes[argument][1:] for name, argument in self.arguments.items() if argument in shapes}
        return {"latents": (size.frames, config.in_channels, size.height, size.width), **conditions}

    def denoiser_inputs(
        self, denoiser: nn.Module, latents: Tensor, timesteps: Tensor, conditions: Mapping[str, Tensor]
    ) -> dict[str, Any]:
        """Keyword arguments of the denoiser, in its own number format.

        Takes the network's input B T C H W, timesteps B and conditions B ..., among which "guidance" may be the scales
        B to embed. A network that embeds guidance gets its pipeline's default without them; one that does not ignores
        them. `denoiser` is the network itself, out of any wrapper.
        """

    def prediction(self, output: Any, latents: Tensor) -> Tensor:
        """What the denoiser returned, as B T C H W, for the network's input `latents` of that shape."""

    def condition_embedding(self, conditions: Mapping[str, Tensor]) -> Tensor:
        """The conditions as one vector a clip, B E float32: what a discriminator projects."""

    def encoder_channels(self, denoiser: nn.Module) -> tuple[int, ...]:
        """The channels of each of `encoder_features`' maps: those of a UNet's down stages."""
        config: Any = denoiser.config
        return tuple(config.block_out_channels)

    def encoder_features(self, denoiser: nn.Module, inputs: Mapping[str, Any]) -> list[Tensor]:
        """Maps (B T) C H W from the first half of the network, given `denoiser_inputs`; no later block runs."""


def conditioning_of(denoiser: nn.Module) -> Conditioning:
    """How clips are fed to a denoiser; raises ModelLoadError for a model that cannot be distilled."""
    family = family_of(denoiser).name
    if family not in CONDITIONING:
        raise ModelLoadError(
            f"a model of family {family!r} can be pruned and sampled, not yet distilled: give one of the families"
            f" {', '.join(CONDITIONING)}"
        )
    found: Conditioning = importlib.import_module(f"vdmini.conditioning.{CONDITIONING[family]}").CONDITIONING
    return found
