"""What a distillation will need: memory by a step on tensors without values, time by two real steps."""

from __future__ import annotations

import os
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate
from operator import or_
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vdmini.distill.batch import TrainingClips
from vdmini.distill.estimate import Estimate, estimate_step
from vdmini.distill.processes import Launched
from vdmini.distill.training import Training
from vdmini.models.registry import VideoModel
from vdmini.plan import PruningPlan
from vdmini_bench.config.models import DistillSpec
from vdmini_bench.distill.recipe import Recipe
from vdmini_bench.distill.trainer import settings_of, task_of
from vdmini_bench.speed.timing import time_once
from vdmini_bench.system.launch import process_device

# What kernels and allocators take for themselves is not in the estimate.
USABLE = 0.9
TIMED_STEPS = 2
# Each saves more memory at the cost of time than the one before, all are tried together from the left.
SAVINGS: tuple[tuple[str, Any], ...] = (
    ("micro_batch_size", 1),
    ("gradient_checkpointing", True),
    ("mixed_precision", "bf16"),
)


@dataclass(frozen=True)
class MemoryEstimate:
    """What a step takes with some settings changed to save memory, at its worst moment, and whether that fits."""

    changes: dict[str, Any]
    estimate: Estimate
    peak_bytes: int
    fits: bool


@dataclass(frozen=True)
class ClipShapes:
    """One encoded clip that stands for all of them: their shapes and speed are its own."""

    values: Mapping[str, Tensor]
    unconditional: Mapping[str, Tensor] | None

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: tuple(value.shape) for name, value in self.values.items()}

    def __len__(self) -> int:
        return 1

    def batch(self, indices: Tensor) -> dict[str, Tensor]:
        """The clip as often as there are indices."""
        return {name: value.expand(len(indices), *value.shape).clone() for name, value in self.values.items()}


def estimate_memory(
    recipe: Recipe, teacher: VideoModel, shapes: Mapping[str, tuple[int, ...]], processes: int, limit_bytes: int,
    *, sharded: bool = False,
) -> list[MemoryEstimate]:  # fmt: skip
    """The memory of a step as asked for and, where that is beyond the limit, of ever more frugal ones until one fits.

    `teacher` is without weights, `shapes` are a latent cache's; `sharded` processes each hold a part of the student.

    Raises:
        PlanError: the plan does not fit the teacher.
    """
    assert recipe.pruning is not None
    assert recipe.distill is not None
    plan = recipe.pruning.plan_of(teacher)
    task, dtype = task_of(recipe.distill, teacher.denoiser), getattr(torch, recipe.dtype)
    found: list[MemoryEstimate] = []
    savings = [{name: value} for name, value in SAVINGS if getattr(recipe.distill, name) != value]
    for changes in accumulate(savings, or_, initial=dict[str, Any]()):
        # The 8-bit optimiser's own kernels take no tensors without values; its state is smaller.
        changed = recipe.distill.model_copy(update={**changes, "optimizer": "adamw"})
        kept = torch.float32 if changed.mixed_precision == "no" else dtype
        estimate = estimate_step(
            teacher.denoiser, plan, shapes, task, settings_of(changed), teacher_dtype=kept, processes=processes
        )
        peak = estimate.peak_in_shards(processes) if sharded else estimate.peak_bytes
        found.append(MemoryEstimate(changes, estimate, peak, peak <= USABLE * limit_bytes))
        if found[-1].fits:
            break
    return found


def time_steps(
    teacher: nn.Module, student: nn.Module, plan: PruningPlan, clips: TrainingClips, distill: DistillSpec
) -> float:
    """Seconds a step, by two real ones after one that is not timed; changes `student`, and keeps nothing else."""
    device = process_device()
    if distill.mixed_precision == "no":
        teacher = teacher.float()
    processes, task = Launched(cpu=device.type == "cpu"), task_of(distill, teacher)
    with Training(processes, teacher, student.float(), plan, clips, task, settings_of(distill)) as training:
        # Past the warm-up, where a step does all that it ever does.
        training.step = distill.discriminator_warmup
        _, *timed = (time_once(training.train_step, device) for _ in range(1 + TIMED_STEPS))
    return statistics.fmean(timed) / 1000


def available_bytes(device: torch.device) -> int:
    """The memory of a device that is free now; of the CPU's, no more than the process's group may take."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for line in _lines(Path("/proc/meminfo")):
        if line.startswith("MemAvailable:"):
            # Unlike free pages, these include what the system would give up.
            free = int(line.split()[1]) * 1024
    for line in _lines(Path("/sys/fs/cgroup/memory.max")):
        if line.isdecimal():
            free = min(free, int(line))
    return free


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
