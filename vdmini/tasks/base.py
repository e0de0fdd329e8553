"""The protocol of a task, and the values that it works on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

# (network input B T C H W, timesteps B) -> prediction B T C H W, with the conditions already bound.
Predict = Callable[[Tensor, Tensor], Tensor]


class Noised(NamedTuple):
    """A batch of clean latents and noise, B T C H W each, at its noise levels, B float32.

    Levels are sigmas (edm, sfv), timesteps (consistency, epsilon) or the noise's share in [0, 1] (flow).
    """

    clean: Tensor
    noise: Tensor
    levels: Tensor


@dataclass(frozen=True)
class Teaching:
    """What some tasks need beside a sample: the teacher's prediction, the guidance scales B, and networks to ask.

    A task keeps no gradient of theirs. `unconditional_teacher` predicts without the condition; it is None where the
    data has no empty condition.
    """

    teacher_prediction: Tensor
    guidance: Tensor | None
    student: Predict
    unconditional_teacher: Predict | None


class Task(Protocol):
    """One kind of teacher's way of training; latents and predictions are B T C H W, levels B float32."""

    def draw_levels(self, count: int, generator: torch.Generator) -> Tensor:
        """Draw `count` noise levels to train at."""

    def draw_adversary_levels(self, count: int, generator: torch.Generator) -> Tensor:
        """Draw `count` noise levels for the discriminator to see clips at."""

    def draw_guidance(self, count: int, generator: torch.Generator) -> Tensor | None:
        """Draw the guidance scales B to embed, as a pipeline takes them; None where none are embedded."""
        return None

    def between(self, lowest: float, highest: float) -> Task:
        """The same task for an expert of some noise levels alone, by the noise's share in them, from 0 to 1.

        Raises ValueError for a task whose levels are no such shares.
        """
        if (lowest, highest) == (0.0, 1.0):
            return self
        raise ValueError(f"experts of some noise levels each are trained by task 'flow', not by {type(self).__name__}")

    def noisy(self, clean: Tensor, noise: Tensor, levels: Tensor) -> Tensor:
        """Noise clean latents to their levels."""

    def network_input(self, noisy: Tensor, levels: Tensor) -> tuple[Tensor, Tensor]:
        """What the network is given for noisy latents: the latents as it takes them, and timesteps B."""
        return noisy, levels

    def denoised(self, prediction: Tensor, noisy: Tensor, levels: Tensor) -> Tensor:
        """The clean latents that a prediction implies; `noisy` is that of `noisy`, not the network's input."""

    def loss(self, sample: Noised, prediction: Tensor, teaching: Teaching) -> Tensor:
        """The student's loss, a scalar; only `prediction` gets a gradient."""
