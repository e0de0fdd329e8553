"""The loop: it draws a batch, has it trained on, watches the losses, saves, and hands out the average."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from torch import nn

from vdmini.distill.batch import TrainingClips
from vdmini.distill.processes import Launched
from vdmini.distill.settings import Distilled, DistillSettings, StepLosses, check_health
from vdmini.distill.training import Training
from vdmini.plan import PruningPlan
from vdmini.tasks.base import Task


def distill(
    teacher: nn.Module,
    student: nn.Module,
    plan: PruningPlan,
    clips: TrainingClips,
    task: Task,
    settings: DistillSettings,
    checkpoint: Path,
    on_step: Callable[[StepLosses], None] = lambda losses: None,
    on_preview: Callable[[int, nn.Module], None] | None = None,
    preview_every: int = 500,
    keep_last: bool = False,
) -> Distilled:
    """Train `student` in place against `teacher` and return its moving average.

    Runs as it was launched: alone, or under `accelerate launch` by DDP or FSDP. All randomness of a step follows from
    (seed, step), so a run continued from `checkpoint` equals an unbroken one, and so does one on more processes up to
    rounding. The main process alone writes `checkpoint` and calls `on_step`, and `on_preview` with (step, average so
    far) every `preview_every` steps. Every process is returned the same result. With `keep_last` the last step is in
    `checkpoint` too, from which another call returns the same at once.

    Raises:
        DivergedError: a loss or a gradient is not finite, or the discriminator has won outright.
        ValueError: the batch does not divide by the number of processes, the launch cannot be used, or `checkpoint` is
            of another plan, task or settings, or of another number of clips.
    """
    processes = Launched(cpu=next(teacher.parameters()).device.type == "cpu")
    with Training(processes, teacher, student, plan, clips, task, settings) as training:
        training.load(checkpoint)
        while training.step < settings.steps:
            training.train_step()
            check_health(training.history, checkpoint, training.broken)
            if processes.index == 0:
                on_step(training.history[-1])
            due = training.step % settings.checkpoint_every == 0
            if keep_last if training.step == settings.steps else due:
                training.save(checkpoint)
            if on_preview is not None and training.step % preview_every == 0:
                average = training.average.gather(keep=processes.index == 0)
                if processes.index == 0:
                    on_preview(training.step, training.averaged_student(average))
                processes.wait()
        return Distilled(training.averaged_student(training.average.gather()), tuple(training.history))
