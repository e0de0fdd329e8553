"""What `distill` would do: its steps, which are done, and the memory, time and money that the others take."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import Any

import click
import numpy as np
import torch

from vdmini.conditioning import conditioning_of
from vdmini.conditioning.base import TrainingClip
from vdmini.distill.batch import TrainingClips
from vdmini.latents import LatentCache
from vdmini.models.registry import VideoModel
from vdmini_bench.distill.estimate import (
    ClipShapes,
    EstimateRequest,
    MemoryEstimate,
    available_bytes,
    estimate_memory,
    time_steps,
)
from vdmini_bench.distill.recipe import Recipe
from vdmini_bench.distill.steps import LATENTS
from vdmini_bench.distill.trainer import CHECKPOINT
from vdmini_bench.models.pruning import plan_of, prune_denoiser, read_channel_rule, split_pruning_text
from vdmini_bench.models.source import pipeline_of
from vdmini_bench.runs.distillation import Distillation
from vdmini_bench.system.launch import on_main, process_device
from vdmini_bench.system.tables import print_table

GIB = 2**30


@dataclass(frozen=True)
class DistillPlan:
    """The steps with whether each is done, and estimates; those of what is done or was not measured are None.

    `encode_seconds` leave out the time that drawing clips takes. `memory` holds the settings asked for first.
    """

    steps: tuple[tuple[str, bool], ...]
    begun: bool
    device: str
    processes: int
    limit_bytes: int
    memory: tuple[MemoryEstimate, ...]
    training_steps: int
    step_seconds: float | None
    encode_seconds: float | None

    @property
    def fits(self) -> bool:
        """Whether a step fits as it is asked for."""
        return not self.memory or self.memory[0].fits

    @property
    def hours(self) -> float | None:
        """What all that is not done takes, pruning apart; None where a step was not timed."""
        if self.step_seconds is None:
            return None
        return (self.step_seconds * self.training_steps + (self.encode_seconds or 0.0)) / 3600

    def to_json(self) -> dict[str, Any]:
        """The object that `distill --plan --json` prints."""
        return {
            "steps": [{"name": name, "done": done} for name, done in self.steps],
            "begun": self.begun,
            "device": self.device,
            "processes": self.processes,
            "limit_bytes": self.limit_bytes,
            "fits": self.fits,
            "memory": [asdict(each) for each in self.memory],
            "training_steps": self.training_steps,
            "step_seconds": self.step_seconds,
            "encode_seconds": self.encode_seconds,
            "hours": self.hours,
        }


def plan_distillation(distillation: Distillation, processes: int, *, timing: bool) -> DistillPlan:
    """Estimate what is not done yet; all processes of a launch call this together.

    Nothing is written. Where the clips are not encoded yet, one grey clip of their size is, to know their latents.

    Raises:
        BenchError: the teacher holds no pipeline, or the estimate failed.
    """
    recipe, device = distillation.recipe, process_device()
    done = on_main(lambda: tuple((job.stage, distillation.is_done(job.stage)) for job in distillation.jobs))
    # Before anything is loaded there.
    limit = available_bytes(device) // (1 if device.type == "cuda" else processes)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    begun = (distillation.folder("distill") / CHECKPOINT).exists()
    if dict(done)["distill"]:
        return DistillPlan(done, begun, name, processes, limit, (), recipe.distill.steps, None, None)
    encode_seconds: float | None = None
    clips: TrainingClips
    if dict(done)["encode"]:
        clips = LatentCache.open(distillation.folder("encode") / LATENTS, verify=False)
        model = recipe.load(recipe.teacher, torch.device("cpu"))
    else:
        model = recipe.load(recipe.teacher)
        clips, seconds = _encode_grey(recipe, model)
        encode_seconds = seconds * recipe.count
    request = EstimateRequest(
        recipe.teacher, recipe.pruning, recipe.dtype, recipe.distill, clips.shapes, processes, limit
    )
    memory = tuple(on_main(lambda: estimate_memory(request)))
    step_seconds = None
    if timing and memory[0].fits:
        plan = plan_of(model, recipe.pruning)
        _, channels = split_pruning_text(recipe.pruning)
        rule = None if channels is None else read_channel_rule(channels, model.family)
        student = prune_denoiser(model.denoiser, plan, rule)
        step_seconds = time_steps(model.denoiser, student, plan, clips, recipe.distill)
    return DistillPlan(done, begun, name, processes, limit, memory, recipe.distill.steps, step_seconds, encode_seconds)


def print_plan(plan: DistillPlan, price_per_hour: float | None) -> None:
    """Show a plan to a person."""
    states = {True: "done", False: "to do"}
    lines = [
        [name, states[done] if done or name != "distill" or not plan.begun else "begun"] for name, done in plan.steps
    ]
    print_table("distill", ["step", "state"], lines)
    if not plan.memory:
        click.echo("all is done; the same command without --plan says where the student is")
        return
    first = plan.memory[0]
    place = f"on {plan.device}" if plan.processes == 1 else f"on each of {plan.processes} x {plan.device}"
    click.echo(
        f"memory of a step {place}: {first.estimate.peak_bytes / GIB:.2f} GiB at most,"
        f" {first.estimate.held_bytes / GIB:.2f} GiB between steps, without what kernels take;"
        f" {plan.limit_bytes / GIB:.1f} GiB are free: {'it fits' if plan.fits else 'it does not fit'}"
    )
    for each in plan.memory[1:]:
        changes = " ".join(f"--set distill.{name}={str(value).lower()}" for name, value in each.changes.items())
        verdict = "fits" if each.fits else "does not fit either"
        click.echo(f"  {changes}: {each.estimate.peak_bytes / GIB:.2f} GiB, {verdict}")
    if not plan.memory[-1].fits:
        click.echo("  none of these fits: take smaller clips or fewer frames, or shard over several GPUs by FSDP")
    if plan.encode_seconds is not None:
        click.echo(
            f"encoding: about {plan.encode_seconds / 3600:.2f} h, and what drawing clips takes if they are drawn"
        )
    if plan.hours is None:
        click.echo("time: not measured")
        return
    assert plan.step_seconds is not None
    cost = "" if price_per_hour is None else f", {plan.hours * price_per_hour:.2f} at {price_per_hour:g} an hour"
    whole = f"about {_duration(plan.hours * 3600)} for {plan.training_steps:,} steps"
    click.echo(f"time: {plan.step_seconds:.2f} s a step, {whole}{cost}")


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def _encode_grey(recipe: Recipe, model: VideoModel) -> tuple[ClipShapes, float]:
    """One grey clip of the recipe's size, encoded, and the seconds that took."""
    pipeline = pipeline_of(model)
    conditioning = conditioning_of(model.denoiser)
    frames = np.full((recipe.frames, recipe.height, recipe.width, 3), 128, dtype=np.uint8)
    started = time.monotonic()
    values = conditioning.encode_clip(pipeline, TrainingClip("grey", frames, "a grey wall"), recipe.encoding)
    seconds = time.monotonic() - started
    return ClipShapes(values, conditioning.unconditional(pipeline)), seconds
