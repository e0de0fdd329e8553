"""What `distill` would do: its steps, which are done, and the memory, time and money that the others take."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, replace
from typing import Any

import click
import numpy as np

from vdmini.conditioning import conditioning_of
from vdmini.conditioning.base import TrainingClip
from vdmini.distill.batch import TrainingClips
from vdmini.distill.processes import is_sharded
from vdmini.latents import LatentCache
from vdmini.models.loading import load_model
from vdmini.models.registry import VideoModel
from vdmini_bench.distill.estimate import ClipShapes, MemoryEstimate, available_bytes, estimate_memory, time_steps
from vdmini_bench.distill.trainer import CHECKPOINT
from vdmini_bench.models.source import expert_count, pipeline_of
from vdmini_bench.runs.distillation import Distillation
from vdmini_bench.runs.stages.encode import LATENTS, clips_of
from vdmini_bench.speed.timing import device_name
from vdmini_bench.system.launch import Share, process_count, process_device, share_out
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
    sharded: bool
    limit_bytes: int
    training_steps: int
    memory: tuple[MemoryEstimate, ...] = ()
    step_seconds: float | None = None
    encode_seconds: float | None = None

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
        """The object that `distill --dry-run --json` prints."""
        steps = [{"name": name, "done": done} for name, done in self.steps]
        return {**asdict(self), "steps": steps, "fits": self.fits, "hours": self.hours}


def plan_distillation(distillation: Distillation, *, timing: bool) -> DistillPlan:
    """Estimate what is not done yet; the processes of a launch time steps together.

    Nothing is written. Where the clips are not encoded yet, one grey clip of their size is, to know their latents.

    Raises:
        BenchError: the teacher holds no pipeline, or the estimate failed.
    """
    context, device, processes = distillation.context, process_device(), process_count()
    recipe = context.recipe(distillation.subject)
    assert recipe.distill is not None
    done = {job.name: context.is_done(job.name) for job in context.graph.needed({distillation.job})}
    # Before anything is loaded there.
    limit = available_bytes(device) // (1 if device.type == "cuda" else processes)
    plan = DistillPlan(
        steps=tuple(done.items()),
        begun=(context.folder(distillation.job) / CHECKPOINT).exists(),
        device=device_name(device),
        processes=processes,
        sharded=is_sharded() and processes > 1,
        limit_bytes=limit,
        training_steps=recipe.distill.steps * expert_count(recipe.taught_by[0]),
    )
    if done[distillation.job]:
        return plan
    clips, seconds = _clips(distillation)
    teacher = load_model(recipe.taught_by[0], device="meta")
    memory = tuple(estimate_memory(recipe, teacher, clips.shapes, processes, limit, sharded=plan.sharded))
    most = clips_of(Share(0, processes), recipe.count, recipe.clips_per_shard)
    plan = replace(plan, memory=memory, encode_seconds=seconds * most or None)
    return replace(plan, step_seconds=share_out(_time_steps, distillation)[0]) if timing and plan.fits else plan


def _time_steps(share: Share, distillation: Distillation) -> float:
    """Seconds of a training step, of all processes together."""
    recipe = distillation.context.recipe(distillation.subject)
    assert recipe.pruning is not None
    assert recipe.distill is not None
    model = recipe.load(recipe.taught_by[0])
    clips, _ = _clips(distillation, model)
    plan = recipe.pruning.plan_of(model)
    return time_steps(model.denoiser, recipe.pruning.apply(model.denoiser, plan), plan, clips, recipe.distill)


def _clips(distillation: Distillation, model: VideoModel | None = None) -> tuple[TrainingClips, float]:
    """The encoded clips, or a grey one of their size in their place with the seconds that encoding it took.

    It is encoded by `model`, the teacher, which is loaded for it when None.
    """
    context = distillation.context
    encode = next(need for need in context.jobs[distillation.job].needs if context.jobs[need].stage == "encode")
    if context.is_done(encode):
        return LatentCache.open(context.folder(encode) / LATENTS, verify=False), 0.0
    recipe = context.recipe(distillation.subject)
    model = model or recipe.load(recipe.teacher)
    pipeline, conditioning = pipeline_of(model), conditioning_of(model.denoiser)
    frames = np.full((recipe.frames, recipe.height, recipe.width, 3), 128, dtype=np.uint8)
    started = time.monotonic()
    values = conditioning.encode_clip(pipeline, TrainingClip("grey", frames, "a grey wall"), recipe.encoding)
    seconds = time.monotonic() - started
    return ClipShapes(values, conditioning.unconditional(pipeline)), seconds


def print_plan(plan: DistillPlan, price_per_hour: float | None) -> None:
    """Show a plan to a person."""
    states = {True: "done", False: "to do"}
    lines = [
        [name, states[done] if done or not name.startswith("distill") or not plan.begun else "begun"]
        for name, done in plan.steps
    ]
    print_table("distill", ["step", "state"], lines)
    if not plan.memory:
        click.echo("all is done; the same command without --dry-run says where the student is")
        return
    first = plan.memory[0]
    place = f"on {plan.device}" if plan.processes == 1 else f"on each of {plan.processes} x {plan.device}"
    between = "" if plan.sharded else f" {first.estimate.held_bytes / GIB:.2f} GiB between steps,"
    click.echo(
        f"memory of a step {place}: {first.peak_bytes / GIB:.2f} GiB at most,{between} without what kernels take;"
        f" {plan.limit_bytes / GIB:.1f} GiB are free: {'it fits' if plan.fits else 'it does not fit'}"
    )
    for each in plan.memory[1:]:
        changes = " ".join(f"--set distill.{name}={str(value).lower()}" for name, value in each.changes.items())
        verdict = "fits" if each.fits else "does not fit either"
        click.echo(f"  {changes}: {each.peak_bytes / GIB:.2f} GiB, {verdict}")
    if not plan.memory[-1].fits:
        more = "over more GPUs" if plan.sharded else "over several GPUs by FSDP"
        click.echo(f"  none of these fits: take smaller clips or fewer frames, or shard {more}")
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
