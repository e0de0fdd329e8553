"""`epsilon`: discrete diffusion that predicts the noise, or v (arXiv 2006.11239, 2202.00512)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from vdmini.tasks.base import Noised, Task, Teaching
from vdmini.tasks.schedule import (
    TRAINING_TIMESTEPS,
    BetaSchedule,
    cumulative_alphas,
    log_normal,
    per_clip,
    require_positive,
    scales_at,
    timesteps_of,
)

Prediction = Literal["epsilon", "v"]


@dataclass(frozen=True)
class EpsilonTask(Task):
    """Levels are timesteps, equally likely; the defaults are those of latent diffusion.

    VideoCrafter2 has `smallest_scale` 0.7: its clean latents shrink to that size in the first `shrinking_timesteps`.
    AnimateDiff has `beta_schedule` "linear". CogVideoX has `prediction` "v" and `zero_terminal_snr`, with `snr_shift` 3
    (2B) or 1 (5B). The adversary sees clips at the timesteps whose noise-to-signal ratios are nearest to SF-V's
    log-normal sigmas (arXiv 2406.04324, section 4).
    """

    prediction: Prediction = "epsilon"
    beta_schedule: BetaSchedule = "scaled_linear"
    beta_start: float = 0.00085
    beta_end: float = 0.012
    snr_shift: float = 1.0
    zero_terminal_snr: bool = False
    smallest_scale: float = 1.0
    shrinking_timesteps: int = 400
    adversary_mean: float = -1.0
    adversary_std: float = 1.0

    def __post_init__(self) -> None:
        for option, known in (("prediction", get_args(Prediction)), ("beta_schedule", get_args(BetaSchedule))):
            if getattr(self, option) not in known:
                raise ValueError(f"{option} {getattr(self, option)!r} is unknown: choose one of {', '.join(known)}")
        require_positive(self, "beta_start", "beta_end", "snr_shift", "smallest_scale", "adversary_std")
        if self.shrinking_timesteps < 2:
            raise ValueError(f"shrinking_timesteps must be at least 2, not {self.shrinking_timesteps}")
        if self.zero_terminal_snr and self.prediction == "epsilon":
            raise ValueError("pure noise says nothing of a clip whose noise is predicted: choose prediction 'v'")

    @property
    def alphas(self) -> Tensor:
        """The noise schedule, see `cumulative_alphas`."""
        return cumulative_alphas(
            self.beta_start, self.beta_end, self.beta_schedule, self.snr_shift, self.zero_terminal_snr
        )

    def draw_levels(self, count: int, generator: torch.Generator) -> Tensor:
        return torch.randint(TRAINING_TIMESTEPS, (count,), generator=generator, device="cpu").float()

    def draw_adversary_levels(self, count: int, generator: torch.Generator) -> Tensor:
        sigmas = log_normal(count, self.adversary_mean, self.adversary_std, generator)
        every = torch.arange(TRAINING_TIMESTEPS, dtype=torch.float64, device="cpu")
        return timesteps_of(sigmas, self.alphas, self._size(every))

    def noisy(self, clean: Tensor, noise: Tensor, levels: Tensor) -> Tensor:
        """sqrt(alpha) * clean + sqrt(1 - alpha) * noise, B T C H W, where clean has its size at the timestep."""
        signal, spread = scales_at(levels, self.alphas, clean)
        return signal * self._sized(clean, levels) + spread * noise

    def denoised(self, prediction: Tensor, noisy: Tensor, levels: Tensor) -> Tensor:
        """The clean latents B T C H W that a prediction implies."""
        signal, spread = scales_at(levels, self.alphas, noisy)
        prediction = prediction.to(noisy)
        if self.prediction == "v":
            sized = signal * noisy - spread * prediction
        else:
            sized = (noisy - spread * prediction) / signal
        return sized / per_clip(self._size(levels), noisy)

    def loss(self, sample: Noised, prediction: Tensor, teaching: Teaching) -> Tensor:
        """Mean squared error of the prediction B T C H W.

        v = sqrt(alpha) * noise - sqrt(1 - alpha) * clean, for which this is the error of the clean latents weighted by
        1 / (1 - alpha), as CogVideoX is trained.
        """
        target = sample.noise
        if self.prediction == "v":
            signal, spread = scales_at(sample.levels, self.alphas, sample.clean)
            target = signal * sample.noise - spread * self._sized(sample.clean, sample.levels)
        return (prediction.to(target) - target).square().mean()

    def _size(self, levels: Tensor) -> Tensor:
        return 1 - (1 - self.smallest_scale) * (levels / (self.shrinking_timesteps - 1)).clamp(max=1)

    def _sized(self, clean: Tensor, levels: Tensor) -> Tensor:
        return per_clip(self._size(levels), clean) * clean
