"""What the three steps of a distillation work from, whoever asked for it: encode, prune, distil."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from vdmini.conditioning.base import EncodeSettings
from vdmini.latents import ClipSource
from vdmini.models.hub import source_name
from vdmini.models.loading import load_model
from vdmini.models.registry import VideoModel
from vdmini.requests import ClipRequest, SampleSettings
from vdmini_bench.config.models import DistillSpec
from vdmini_bench.models.pruning import Pruning, denoiser_parameters
from vdmini_bench.system.launch import process_device


@dataclass(frozen=True)
class Preview:
    """What to sample while training, for people to look at."""

    requests: Sequence[ClipRequest]
    settings: SampleSettings


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a student, and how much memory and time it takes.

    `pruning` is None for what only encodes, `distill` for what is not distilled; `lora` is merged into the teacher
    before it is pruned.

    `teacher` is where the teacher loads from, `dtype` the number format it is loaded in; `parent` is the folder of a
    finished model whose denoiser is pruned and learned from in its place, with the identity of its weights. `clips`
    gives the `count` training clips, of `frames` x `height` x `width` pixels, and may draw them with the teacher into
    the folder it is given; `prompts` are what they show, where that is somebody's own words.
    """

    teacher: str
    teacher_sha256: str
    pruning: Pruning | None
    lora: str | None
    dtype: str
    clips: Callable[[VideoModel, Path], ClipSource]
    count: int
    frames: int
    height: int
    width: int
    encoding: EncodeSettings
    distill: DistillSpec | None
    clips_per_shard: int = 64
    skip_unreadable: bool = False
    preview: Preview | None = None
    prompts: Sequence[str] = ()
    parent: tuple[str, str] | None = None

    @property
    def taught_by(self) -> tuple[str, str]:
        """The folder of the denoiser that is pruned and learned from, and the identity of its weights."""
        return self.parent or (self.teacher, self.teacher_sha256)

    def origin(self, teacher: VideoModel) -> dict[str, object]:
        """Where a student of that loaded teacher comes from, as its provenance tells."""
        return {
            "teacher": source_name(self.teacher),
            "teacher_sha256": self.taught_by[1],
            "teacher_parameters": denoiser_parameters(teacher),
            "channels": None if self.pruning is None else self.pruning.channels,
            "lora": self.lora,
        }

    def load(self, source: str, device: torch.device | None = None) -> VideoModel:
        """Load the teacher or its student in the recipe's number format, on the process's device when None."""
        return load_model(source, device=device or process_device(), dtype=getattr(torch, self.dtype))
