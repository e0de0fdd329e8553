"""How each family's training clips are encoded, and how they and their conditions are fed to its denoiser.

Videos are B T C H W here; a family's own layout stays inside its module.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol, cast

from vdmini.conditioning.base import EncodeSettings, TrainingClip
from vdmini.errors import ModelLoadError
from vdmini.models.registry import family_of

if TYPE_CHECKING:
    from diffusers.pipelines.pipeline_utils import DiffusionPipeline
    from torch import Tensor, nn

# One module a family that can be distilled; each implements `Conditioning`.
CONDITIONING = {
    "svd": "vdmini.conditioning.svd",
    "videocrafter2": "vdmini.conditioning.videocrafter",
    "hunyuanvideo": "vdmini.conditioning.hunyuanvideo",
    "wan": "vdmini.conditioning.wan",
    "cogvideox": "vdmini.conditioning.cogvideox",
    "mochi": "vdmini.conditioning.mochi",
}


class Conditioning(Protocol):
    """What a family's module must say, so that distilling need not know the family."""

    def encode_clip(
        self, pipeline: DiffusionPipeline, clip: TrainingClip, settings: EncodeSettings
    ) -> dict[str, Tensor]:
        """The clip's tensors by name, float32 on the CPU without a batch dimension.

        "latents" are T C H W in the denoiser's own scale; all others are conditions. Raises ValueError for a clip of
        a size that the model cannot take.
        """

    def unconditional(self, pipeline: DiffusionPipeline, settings: EncodeSettings) -> dict[str, Tensor] | None:
        """The text conditions of an empty prompt, as `encode_clip` gives them; None where guidance is not by text."""

    def denoiser_inputs(
        self,
        denoiser: nn.Module,
        latents: Tensor,
        timesteps: Tensor,
        conditions: Mapping[str, Tensor],
        guidance: Tensor | None,
    ) -> dict[str, Tensor]:
        """Keyword arguments of the denoiser, in its own number format.

        Takes the network's input B T C H W, timesteps B, conditions B ... and the guidance scales B to embed. A network
        that embeds guidance gets its pipeline's default for None; one that does not ignores them. `denoiser` is the
        network itself, out of any wrapper.
        """

    def prediction(self, output: Any) -> Tensor:
        """What the denoiser returned, as B T C H W."""

    def condition_embedding(self, conditions: Mapping[str, Tensor]) -> Tensor:
        """The conditions as one vector a clip, B E float32: what a discriminator projects."""

    def encoder_channels(self, denoiser: nn.Module) -> tuple[int, ...]:
        """The channels of each of `encoder_features`' maps."""

    def encoder_features(self, denoiser: nn.Module, inputs: Mapping[str, Tensor]) -> list[Tensor]:
        """Maps (B T) C H W from the first half of the network, given `denoiser_inputs`; no later block runs."""


def conditioning_of(denoiser: nn.Module) -> Conditioning:
    """How clips are fed to a denoiser; raises ModelLoadError for a model that cannot be distilled."""
    family = family_of(denoiser).NAME
    if family not in CONDITIONING:
        raise ModelLoadError(
            f"a model of family {family!r} can be pruned and sampled, not yet distilled: give one of the families"
            f" {', '.join(CONDITIONING)}"
        )
    return cast(Conditioning, importlib.import_module(CONDITIONING[family]))
