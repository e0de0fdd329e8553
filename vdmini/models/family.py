"""What a family says of itself, so that planning, pruning, distilling and timing need not know it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from vdmini.blocks import ModelInput, Unit

if TYPE_CHECKING:
    import numpy as np
    from diffusers.pipelines.pipeline_utils import DiffusionPipeline
    from numpy.typing import NDArray
    from torch import nn

    from vdmini.requests import ClipRequest, SampleSettings
    from vdmini.tasks.base import Task


Images = Literal["never", "always", "optional"]


class Family(Protocol):
    """One kind of denoiser; a family's file holds its object, `FAMILY`.

    `convolves_frames` says that two-dimensional convolutions do most of the work; `cuts_text` that `optimize` may leave
    out the padding of its texts; `guides_apart` that the second pass of guidance runs after the first, not beside it.
    `channel_class` is the class of its students that lost channels, which has a setting `layer_channels`, or None where
    channel pruning does not know the family; `fixed_layers` are those that keep every channel they write.
    """

    name: str
    convolves_frames: bool = False
    cuts_text: bool = False
    guides_apart: bool = False
    channel_class: type[nn.Module] | None = None
    fixed_layers: tuple[str, ...] = ("conv_out",)

    def matches(self, denoiser: nn.Module) -> bool:
        """Whether a denoiser belongs to this family, as teacher or as student."""

    def denoiser_classes(self) -> dict[str, type[nn.Module]]:
        """The denoiser classes of this family by the name that a config.json gives them."""

    def build_official(self, name: str) -> tuple[nn.Module, nn.Module]:
        """The denoiser and VAE of a published model with random weights, on torch's current default device."""

    def load_original(self, name: str, path: Path) -> nn.Module:
        """The denoiser of a published model's original file; raises ModelLoadError for any other."""

    def images(self, denoiser: nn.Module) -> Images:
        """Whether clips are made from an image: never, always, or where there is one."""
        return "never"

    def images_for(self, pipeline: DiffusionPipeline) -> Images:
        """The same of a whole pipeline, where its class may decide."""
        run: Any = pipeline
        return self.images(getattr(run, "unet", None) or run.transformer)

    def default_task(self, denoiser: nn.Module) -> Task:
        """What a denoiser is trained to do."""

    def default_input(self, denoiser: nn.Module) -> ModelInput:
        """One clip of the size that the denoiser was published for."""

    def input_shapes(self, denoiser: nn.Module, size: ModelInput) -> dict[str, tuple[int, ...]]:
        """The shapes of the keyword arguments of one forward pass at a size, without guidance by a second pass."""

    def example_inputs(self, denoiser: nn.Module, size: ModelInput) -> dict[str, Any]:
        """Keyword arguments of one forward pass at a size: shapes only, on the meta device, but for places."""
        import torch

        return {name: torch.empty(shape, device="meta") for name, shape in self.input_shapes(denoiser, size).items()}

    def passes_per_step(self, denoiser: nn.Module, settings: SampleSettings) -> int:
        """How often its pipeline runs a denoiser in a step: twice with guidance by a pass without the condition."""
        return 1 if settings.guidance is not None and settings.guidance <= 1 else 2

    def passes_at_once(self, denoiser: nn.Module, settings: SampleSettings) -> int:
        """How many of a step's passes run together, as one batch."""
        return 1 if self.guides_apart else self.passes_per_step(denoiser, settings)

    def latent_compression(self, vae: Any) -> tuple[int, int]:
        """How many frames, and how many pixels along a side, one latent of the VAE stands for."""

    def latent_frames(self, denoiser: nn.Module, frames: int, stride: int) -> int:
        """How many latents of `stride` frames a denoiser is given of a clip; raises ValueError for another length."""
        if (frames - 1) % stride:
            raise ValueError(f"this model makes 1 + {stride}k frames, not {frames}: give such a number")
        return (frames - 1) // stride + 1

    def clip_frames(self, denoiser: nn.Module, latents: int, stride: int) -> int:
        """How many frames a clip of so many latents has."""
        return (latents - 1) * stride + 1

    def width(self, denoiser: nn.Module) -> int:
        """The channels of a UNet's first stage, or the hidden size of a transformer."""

    def narrowed(self, denoiser: nn.Module, width: int) -> dict[str, Any]:
        """The settings that give the same topology another width; raises ValueError for one that does not fit."""
        raise ValueError("comes in its published widths only: leave the width out")

    def architecture(self, denoiser: nn.Module) -> dict[str, object]:
        """The part of a denoiser's configuration that decides its weights: what a plan identifies its teacher by."""

    def block_modules(self, denoiser: nn.Module) -> dict[str, tuple[nn.Module, ...]]:
        """The submodules of every block in the order they run; none is left out."""

    def stage_modules(self, denoiser: nn.Module) -> dict[str, nn.Module]:
        """The module whose output is each stage's output, in the order they run."""

    def units(self, denoiser: nn.Module) -> tuple[Unit, ...]:
        """The smallest removals that leave a network which can be wired."""

    def block_depth(self, denoiser: nn.Module, block: str) -> int:
        """Depth of a block, as `Block` counts it."""

    def build_student(self, teacher: nn.Module, kept: Sequence[str], removed: Sequence[str]) -> nn.Module:
        """The student's network for the blocks kept of a teacher, with its own random weights.

        Raises PlanError when the kept blocks cannot be wired.
        """

    def prove(self, teacher: nn.Module, student: nn.Module, removed: Sequence[str]) -> None:
        """Raise PlanError unless a student does what its teacher does without the removed blocks, where that is known.

        A UNet without blocks is another network; its teacher cannot say what it should do.
        """
        return None

    def skip_wiring(self, kept: Sequence[str]) -> tuple[tuple[str, str], ...]:
        """(reader, writer) of each skip connection; raises PlanError where they do not pair up."""

    def student_names(self, kept: Sequence[str], removed: Sequence[str]) -> dict[str, str]:
        """What each kept block is called in the student; raises PlanError as `build_student` does."""

    def feature_pairs(self, kept: Sequence[str], removed: Sequence[str]) -> list[tuple[str, str]]:
        """(student stage, teacher stage) whose outputs should agree, in the order they run.

        Raises PlanError as `build_student` does.
        """

    def sample(
        self, pipeline: DiffusionPipeline, requests: Sequence[ClipRequest], settings: SampleSettings
    ) -> NDArray[np.float32]:
        """Each request's clip: B T H W C float32 RGB in [0, 1]; raises ValueError for a size it cannot make."""


def require_multiple(width: int, step: int) -> None:
    """Raise ValueError unless a width divides by `step`."""
    if width < step or width % step:
        raise ValueError(f"needs a multiple of {step}, such as {step}")
