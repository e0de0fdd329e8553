"""Distil a pruned model into a folder: losses as they come, previews, the student, and what it took."""

from __future__ import annotations

import contextlib
import json
import resource
import shutil
import time
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from torch import nn

from vdmini.checkpoint import save_student
from vdmini.distill import DistillSettings, StepLosses, distill
from vdmini.finite import NotFiniteError
from vdmini.latents import LatentCache
from vdmini.models.registry import Expert, VideoModel, family_of, replace_denoiser
from vdmini.plan import PruningPlan
from vdmini.sample import sample_clips
from vdmini.tasks import make_task
from vdmini.tasks.base import Task
from vdmini_bench.config.models import DistillSpec
from vdmini_bench.data.video import write_video
from vdmini_bench.distill.loss_log import logged, write_losses
from vdmini_bench.distill.recipe import Preview, Recipe
from vdmini_bench.results.store import STUDENT, SUMMARY
from vdmini_bench.speed.timing import device_name
from vdmini_bench.system.files import write_atomically
from vdmini_bench.system.launch import process_device

CHECKPOINT = "checkpoint.pt"
PREVIEWS = "previews"


@dataclass(frozen=True)
class Summary:
    """What a distillation took; `seconds` and `peak_memory_bytes`, of one process, are of the `timed_steps` run now."""

    steps: int
    clips_seen: int
    timed_steps: int
    seconds: float
    processes: int
    device: str
    peak_memory_bytes: int

    @property
    def hours_per_1000_steps(self) -> float:
        """Wall-clock hours that a thousand steps take; 0 when none was run now."""
        return self.seconds / 3.6 / self.timed_steps if self.timed_steps else 0.0

    def to_json(self) -> dict[str, Any]:
        """As plain JSON data."""
        return {**asdict(self), "hours_per_1000_steps": self.hours_per_1000_steps}


def settings_of(specification: DistillSpec) -> DistillSettings:
    """The library's settings for what a suite or a configuration asks for."""
    return DistillSettings(**specification.model_dump(exclude={"task", "task_options", "preview_every", "report_to"}))


def task_of(specification: DistillSpec | None, denoiser: nn.Module) -> Task:
    """The task that is asked for, or the family's own."""
    if specification is None or specification.task is None:
        return family_of(denoiser).default_task(denoiser)
    return make_task(specification.task, specification.task_options)


def distill_into(
    folder: Path, recipe: Recipe, teacher: VideoModel, pruned: VideoModel, plan: PruningPlan, clips: LatentCache
) -> Summary:
    """Distil `pruned` from `teacher`; leaves the student's folder, the losses and a summary, and goes on after a kill.

    Both are on the CPU. Experts are distilled one after the other, each from its own and at its own noise levels; one
    of both is on the process's device at a time, and the pruned model's pipeline for the previews. Under `accelerate
    launch` all processes call this together, and the first one writes.
    """
    specification, preview = recipe.distill, recipe.preview
    assert specification is not None
    state, settings = PartialState(), settings_of(specification)
    if state.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(state.device)
    dtype: Any = pruned.denoiser.dtype
    experts, started, timed = pruned.experts, time.monotonic(), 0
    checkpoints = [folder / CHECKPOINT, *(folder / f"{expert.name}-{CHECKPOINT}" for expert in experts[1:])]
    whole: Any = pruned.pipeline
    history: list[StepLosses] = []
    with (
        logged(folder, settings.steps * len(experts), specification.report_to)
        if state.is_main_process
        else contextlib.nullcontext(lambda losses: None) as note
    ):

        def on_step(losses: StepLosses) -> None:
            nonlocal timed
            timed += 1
            note(replace(losses, step=len(history) + losses.step))

        for taught, expert, checkpoint in zip(teacher.experts, experts, checkpoints, strict=True):
            followed = checkpoint != checkpoints[-1]
            show = None if preview is None else partial(_show, folder, pruned, expert, preview, dtype, len(history))
            task = task_of(specification, taught.denoiser).between(expert.lowest, expert.highest)
            frozen = taught.denoiser.float() if specification.mixed_precision == "no" else taught.denoiser
            distilled = distill(
                # Weights train in float32: steps of 1e-5 vanish in bfloat16. `mixed_precision` is what makes it fast.
                frozen.to(process_device()), expert.denoiser.float(), plan, clips, task, settings, checkpoint, on_step,
                show, specification.preview_every or settings.steps + 1, keep_last=followed,
            )  # fmt: skip
            history += [replace(losses, step=len(history) + losses.step) for losses in distilled.losses]
            student: Any = distilled.student.to("cpu", dtype)
            if whole is not None:
                replace_denoiser(whole, student, expert.name)
            if followed:
                # Only one teacher and its student are on the device at a time.
                frozen.to("cpu")
                expert.denoiser.to("cpu")
    seconds = time.monotonic() - started
    summary = Summary(
        steps=len(history),
        clips_seen=len(history) * settings.batch_size,
        timed_steps=timed,
        seconds=seconds,
        processes=state.num_processes,
        device=device_name(state.device),
        peak_memory_bytes=_peak_memory(state.device),
    )
    if state.is_main_process:
        write_losses(folder, history)
        write_atomically(folder / SUMMARY, json.dumps(summary.to_json(), indent=1) + "\n")
        provenance = {**recipe.origin(teacher), "distill": specification.model_dump(), "clips": len(clips)}
        shutil.rmtree(folder / STUDENT, ignore_errors=True)
        save_student(folder / STUDENT, student if whole is None else whole, plan, provenance)
        for checkpoint in checkpoints:
            checkpoint.unlink(missing_ok=True)
    state.wait_for_everyone()
    return summary


def _show(
    folder: Path, pruned: VideoModel, expert: Expert, preview: Preview, dtype: torch.dtype, before: int, step: int,
    average: nn.Module,
) -> None:  # fmt: skip
    """Sample the preview's clips with an expert's average so far, an .mp4 each; the rest of the pipeline joins it.

    It is the run's `step` after the `before` that other experts took.
    """
    pipeline: Any = pruned.pipeline
    if pipeline is None:
        return
    replace_denoiser(pipeline, average.to(dtype), expert.name)
    try:
        pipeline.to(next(average.parameters()).device)
        for request in preview.requests:
            try:
                clip = sample_clips(pipeline, [request], preview.settings)[0]
            except NotFiniteError as error:
                raise NotFiniteError(f"preview at step {before + step}: {error}") from error
            path = folder / PREVIEWS / f"step-{before + step:06d}" / f"{request.name}.mp4"
            write_video(path, clip, preview.settings.frames_per_second)
    finally:
        pipeline.to("cpu")
        replace_denoiser(pipeline, expert.denoiser, expert.name)


def _peak_memory(device: torch.device) -> int:
    """Bytes: what CUDA allocated at most, or the whole process's resident memory on the CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
