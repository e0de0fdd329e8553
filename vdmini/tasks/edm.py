"""`edm`: multi-step diffusion as Stable Video Diffusion is trained.

Karras et al. 2022 (arXiv 2206.00364) with sigma_data = 1, log-normal sigmas and v-prediction (arXiv 2311.15127,
appendix D).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from vdmini.tasks.base import Noised, Task, Teaching
from vdmini.tasks.schedule import log_normal, per_clip, require_positive


class SigmaTask(Task):
    """Levels are sigmas, at which the network predicts v."""

    def noisy(self, clean: Tensor, noise: Tensor, levels: Tensor) -> Tensor:
        """clean + sigma * noise, B T C H W."""
        return clean + per_clip(levels, clean) * noise

    def network_input(self, noisy: Tensor, levels: Tensor) -> tuple[Tensor, Tensor]:
        """c_in * x B T C H W and c_noise B, with c_in = 1 / sqrt(sigma^2 + 1) and c_noise = ln(sigma) / 4."""
        return noisy / (per_clip(levels, noisy) ** 2 + 1).sqrt(), levels.log() / 4

    def denoised(self, prediction: Tensor, noisy: Tensor, levels: Tensor) -> Tensor:
        """c_skip * x + c_out * F with c_skip = 1 / (sigma^2 + 1) and c_out = -sigma / sqrt(sigma^2 + 1)."""
        spread = per_clip(levels, noisy)
        return noisy / (spread**2 + 1) - prediction.to(noisy) * spread / (spread**2 + 1).sqrt()


@dataclass(frozen=True)
class EdmTask(SigmaTask):
    """ln(sigma) ~ N(sigma_mean, sigma_std); the defaults are Stable Video Diffusion's own.

    The adversary's are those of SF-V (arXiv 2406.04324, section 4), not discretised.
    """

    sigma_mean: float = 0.7
    sigma_std: float = 1.6
    adversary_mean: float = -1.0
    adversary_std: float = 1.0

    def __post_init__(self) -> None:
        require_positive(self, "sigma_std", "adversary_std")

    def draw_levels(self, count: int, generator: torch.Generator) -> Tensor:
        return log_normal(count, self.sigma_mean, self.sigma_std, generator)

    def draw_adversary_levels(self, count: int, generator: torch.Generator) -> Tensor:
        return log_normal(count, self.adversary_mean, self.adversary_std, generator)

    def loss(self, sample: Noised, prediction: Tensor, teaching: Teaching) -> Tensor:
        """See `edm_loss`."""
        return edm_loss(prediction, sample.clean, sample.noise, sample.levels)


def edm_loss(prediction: Tensor, clean: Tensor, noise: Tensor, sigmas: Tensor) -> Tensor:
    """Mean squared error of the v-prediction B T C H W, which equals EDM's lambda(sigma)-weighted denoising error.

    The target F = (clean - c_skip * x) / c_out is the velocity (noise - sigma * clean) / sqrt(sigma^2 + 1), and
    lambda(sigma) * c_out^2 = 1.
    """
    spread = per_clip(sigmas, clean)
    velocity = (noise - spread * clean) / (spread**2 + 1).sqrt()
    return (prediction.to(clean) - velocity).square().mean()
