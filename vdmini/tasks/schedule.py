"""Noise schedules and draws of noise levels that several tasks share."""

from __future__ import annotations

import math
from functools import cache
from typing import Literal

import torch
from torch import Tensor

TRAINING_TIMESTEPS = 1000

BetaSchedule = Literal["scaled_linear", "linear"]


def per_clip(values: Tensor, latents: Tensor) -> Tensor:
    """One value B a clip, shaped B 1 1 1 1 with the type and the device of `latents` B T C H W."""
    return values.view(-1, *[1] * (latents.dim() - 1)).to(latents)


def log_normal(count: int, mean: float, std: float, generator: torch.Generator) -> Tensor:
    """Draw `count` float32 values on the CPU with ln(value) ~ N(mean, std)."""
    return (mean + std * torch.randn(count, generator=generator, device="cpu")).exp()


@cache
def cumulative_alphas(
    beta_start: float,
    beta_end: float,
    beta_schedule: BetaSchedule = "scaled_linear",
    snr_shift: float = 1.0,
    zero_terminal_snr: bool = False,
) -> Tensor:
    """The share of the signal's variance that is left at timesteps 0 to 999: float64, on the CPU, falling.

    Betas rise linearly, or their square roots do in "scaled_linear" (Rombach et al. 2022). `snr_shift` divides the
    signal-to-noise ratio (Esser et al. 2024, section 5.3.2, as CogVideoX uses it), and `zero_terminal_snr` stretches
    the schedule until timestep 999 is pure noise (Lin et al. 2024, algorithm 1). Do not change the tensor: it is kept.
    """
    power = 2 if beta_schedule == "scaled_linear" else 1
    first, last = beta_start ** (1 / power), beta_end ** (1 / power)
    betas = torch.linspace(first, last, TRAINING_TIMESTEPS, dtype=torch.float64, device="cpu") ** power
    alphas = (1 - betas).cumprod(0)
    alphas = alphas / (snr_shift + (1 - snr_shift) * alphas)
    if zero_terminal_snr:
        signal = alphas.sqrt()
        alphas = ((signal - signal[-1]) * signal[0] / (signal[0] - signal[-1])) ** 2
    return alphas


def scales_at(timesteps: Tensor, alphas: Tensor, latents: Tensor) -> tuple[Tensor, Tensor]:
    """How large signal and noise are at `timesteps` B: sqrt(alpha) and sqrt(1 - alpha), B 1 1 1 1 as `latents`."""
    alpha = alphas.to(timesteps.device)[timesteps.long()]
    return per_clip(alpha.sqrt(), latents), per_clip((1 - alpha).sqrt(), latents)


def timesteps_of(sigmas: Tensor, alphas: Tensor, size: Tensor | None = None) -> Tensor:
    """The timesteps B, float32, whose noise-to-signal ratio is nearest in logarithm to `sigmas` B.

    `size` is that of the clean latents at each timestep, 1 where not given.
    """
    signal = alphas.sqrt() if size is None else alphas.sqrt() * size
    ratios = ((1 - alphas).sqrt() / signal).log()
    between = (ratios[1:] + ratios[:-1]) / 2
    return torch.searchsorted(between, sigmas.log().to(between)).float()


def require_positive(task: object, *options: str) -> None:
    """Check options of a task.

    Raises:
        ValueError: an option is not a finite number above 0.
    """
    for option in options:
        value = getattr(task, option)
        if not 0 < value < math.inf:
            raise ValueError(f"{option} must be above 0, not {value}")
