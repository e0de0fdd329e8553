"""What a distillation is told, and what it tells: settings, the losses of a step, the result, the ways it stops."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Literal

from torch import nn


@dataclass(frozen=True)
class DistillSettings:
    """How long and how hard to distil; the loss weights default to the paper's.

    `batch_size` is that of all processes together, and each process works through its share `micro_batch_size` clips
    at a time (all at once when None): both change memory and speed, not the result. `real` says what the discriminator
    holds against the student: what the teacher made of the same noisy clips, or the clips themselves (SF-V).
    `balance` "adaptive" multiplies `lambda_mca` so that both losses pull equally at the student's output.
    `lr_scheduler` "warm_cosine" warms up over 3 % of the steps and falls as a cosine to a tenth; others are diffusers'
    ("constant", "constant_with_warmup", "linear", "cosine", ...), which warm up over `lr_warmup_steps`.
    """

    steps: int
    batch_size: int
    micro_batch_size: int | None = None
    learning_rate: float = 1e-5
    lr_scheduler: str = "warm_cosine"
    lr_warmup_steps: int = 0
    head_learning_rate: float = 1e-4
    weight_decay: float = 1e-2
    optimizer: Literal["adamw", "adamw8bit"] = "adamw"
    lambda_icd: float = 0.1
    lambda_mca: float = 1.0
    lambda_output: float = 0.0
    lambda_r1: float = 0.0
    real: Literal["teacher", "data"] = "teacher"
    balance: Literal["fixed", "adaptive"] = "fixed"
    discriminator_warmup: int = 0
    ema_decay: float = 0.95
    gradient_clip: float = 1.0
    gradient_checkpointing: bool = False
    mixed_precision: Literal["no", "bf16"] = "no"
    checkpoint_every: int = 100
    seed: int = 0

    def share(self, processes: int) -> int:
        """Clips a step for each process.

        Raises:
            ValueError: the batch does not divide by the processes, or a process's share by `micro_batch_size`.
        """
        if self.batch_size % processes:
            raise ValueError(f"batch_size {self.batch_size} does not divide by {processes} processes: take a multiple")
        share = self.batch_size // processes
        if share % (self.micro_batch_size or share):
            raise ValueError(
                f"micro_batch_size {self.micro_batch_size} does not divide the {share} clips of a process: choose one"
                " that does"
            )
        return share


@dataclass(frozen=True)
class StepLosses:
    """The losses of one step over the whole batch, before their weights; those that are off are 0."""

    step: int
    task: float
    icd: float
    mca: float
    output: float
    discriminator: float
    gradient_norm: float

    def values(self) -> list[float]:
        """All but the step, in the order of the fields."""
        return [getattr(self, field.name) for field in fields(self)[1:]]


@dataclass(frozen=True)
class Distilled:
    """The student's exponential moving average and the losses of every step."""

    student: nn.Module
    losses: tuple[StepLosses, ...]


class DivergedError(RuntimeError):
    """Training stopped because it went wrong; the checkpoint named in the message is the last good one."""


# A hinge loss of 0 means that every score is beyond its margin: the heads have nothing left to tell the student.
WON_LOSS = 0.01
WON_STEPS = 50


def check_health(losses: Sequence[StepLosses], checkpoint: Path, broken: Sequence[str] = ()) -> None:
    """Look at the losses so far, the newest last; `checkpoint` holds the last good state, if any was saved.

    `broken` names what has gradients that are not finite.

    Raises:
        DivergedError: the newest are not finite, each named, or the discriminator has won outright for 50 steps.
    """
    newest = losses[-1]
    good = f"the last good checkpoint is {checkpoint}" if checkpoint.exists() else "no checkpoint was written yet"
    wrong = [f"{name} is {value}" for name, value in asdict(newest).items() if not math.isfinite(value)]
    if wrong or broken:
        if broken:
            wrong.append(f"the gradients of {', '.join(broken[:3])}{' and others' * (len(broken) > 3)} are not finite")
        raise DivergedError(f"step {newest.step}: {', '.join(wrong)}; {good}; lower the learning rate")
    recent = losses[-WON_STEPS:]
    if len(recent) == WON_STEPS and all(0 < each.discriminator < WON_LOSS for each in recent):
        raise DivergedError(
            f"step {newest.step}: the discriminator has told student and teacher apart without fail for {WON_STEPS}"
            f" steps (loss below {WON_LOSS}); {good}; lower head_learning_rate, or raise lambda_r1 or"
            " discriminator_warmup"
        )
