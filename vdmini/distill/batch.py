"""One training batch, drawn so that neither resuming nor the number of processes changes it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from vdmini.distill.settings import DistillSettings
from vdmini.tasks.base import Noised, Task


class TrainingClips(Protocol):
    """Encoded clips to draw batches from; a `LatentCache` is one."""

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]: ...
    @property
    def unconditional(self) -> Mapping[str, Tensor] | None: ...
    def __len__(self) -> int: ...
    def batch(self, indices: Tensor) -> dict[str, Tensor]: ...


class Batch(NamedTuple):
    """Clean latents and noise B T C H W with their noise levels B, conditions by name, and what the adversary needs.

    Among the conditions are the "guidance" scales B, where a task draws some.
    """

    sample: Noised
    conditions: dict[str, Tensor]
    adversary_noise: Tensor
    adversary_levels: Tensor


def draw_share(
    clips: TrainingClips, task: Task, settings: DistillSettings, step: int, process: int, processes: int
) -> Iterator[Batch]:
    """This process's share of a step's batch, on the CPU, in micro-batches.

    The whole batch's random numbers follow from (seed, step) and are drawn by every process; each takes its own.
    """
    size, share = settings.batch_size, settings.share(processes)
    generator = torch.Generator().manual_seed(settings.seed * 1_000_003 + step)
    chosen = torch.randint(0, len(clips), (size,), generator=generator)
    shape = (size, *clips.shapes["latents"])
    noise = torch.randn(shape, generator=generator)
    levels = task.draw_levels(size, generator)
    guidance = task.draw_guidance(size, generator)
    adversary_noise = torch.randn(shape, generator=generator)
    adversary_levels = task.draw_adversary_levels(size, generator)
    for part in torch.arange(size)[process::processes].split(settings.micro_batch_size or share):
        conditions = clips.batch(chosen[part])
        clean = conditions.pop("latents")
        if guidance is not None:
            conditions["guidance"] = guidance[part]
        yield Batch(
            Noised(clean, noise[part], levels[part]),
            conditions,
            adversary_noise[part],
            adversary_levels[part],
        )
