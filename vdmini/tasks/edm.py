"""`edm`: multi-step diffusion as Stable Video Diffusion is trained.

Karras et al. 2022 (arXiv 2206.00364) with sigma_data = 1, log-normal sigmas and v-prediction (arXiv 2311.15127,
appendix D).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from vdmini.tasks.schedule import log_normal, per_clip, require_positive

if TYPE_CHECKING:
    from vdmini.tasks.base import Networks, Noised


@dataclass(frozen=True)
class EdmTask:
    """Levels are sigmas, ln(sigma) ~ N(sigma_mean, sigma_std); the defaults are Stable Video Diffusion's own.

    The adversary's are those of SF-V (arXiv 2406.04324, section 4), not discretised.
    """

    sigma_mean: float = 0.7
    sigma_std: float = 1.6
    adversary_mean: float = -1.0
    adversary_std: float = 1.0

    def __post_init__(self) -> None:
        require_positive(self, "sigma_std", "adversary_std")

    def draw_levels(self, count: int, generator: torch.Generator) -> Tensor:
        """Draw `count` sigmas to train at, float32."""
        return log_normal(count, self.sigma_mean, self.sigma_std, generator)

    def draw_adversary_levels(self, count: int, generator: torch.Generator) -> Tensor:
        """Draw `count` sigmas for the discriminator to see clips at, float32."""
        return log_normal(count, self.adversary_mean, self.adversary_std, generator)

    def draw_guidance(self, count: int, generator: torch.Generator) -> None:
        """No guidance is embedded."""

    def noisy(self, clean: Tensor, noise: Tensor, levels: Tensor) -> Tensor:
        """See `noisy_at_sigma`."""
        return noisy_at_sigma(clean, noise, levels)

    def network_input(self, noisy: Tensor, levels: Tensor) -> tuple[Tensor, Tensor]:
        """See `preconditioned`."""
        return preconditioned(noisy, levels)

    def denoised(self, prediction: Tensor, noisy: Tensor, levels: Tensor) -> Tensor:
        """See `denoised_from_prediction`."""
        return denoised_from_prediction(prediction, noisy, levels)

    def loss(
        self,
        sample: Noised,
        student_prediction: Tensor,
        teacher_prediction: Tensor,
        guidance: Tensor | None,
        networks: Networks,
    ) -> Tensor:
        """See `edm_loss`."""
        return edm_loss(student_prediction, sample.clean, sample.noise, sample.levels)


def noisy_at_sigma(clean: Tensor, noise: Tensor, sigmas: Tensor) -> Tensor:
    """Add noise of the strengths `sigmas` B to `clean` latents B T C H W: clean + sigma * noise."""
    return clean + per_clip(sigmas, clean) * noise


def preconditioned(noisy: Tensor, sigmas: Tensor) -> tuple[Tensor, Tensor]:
    """The network's input c_in * x B T C H W and its timestep c_noise B.

    c_in = 1 / sqrt(sigma^2 + 1) and c_noise = ln(sigma) / 4.
    """
    return noisy / (per_clip(sigmas, noisy) ** 2 + 1).sqrt(), sigmas.log() / 4


def denoised_from_prediction(prediction: Tensor, noisy: Tensor, sigmas: Tensor) -> Tensor:
    """Turn a v-prediction B T C H W into the latents c_skip * x + c_out * F; `noisy` is x, not yet scaled by c_in.

    c_skip = 1 / (sigma^2 + 1) and c_out = -sigma / sqrt(sigma^2 + 1).
    """
    spread = per_clip(sigmas, noisy)
    return noisy / (spread**2 + 1) - prediction.to(noisy) * spread / (spread**2 + 1).sqrt()


def edm_loss(prediction: Tensor, clean: Tensor, noise: Tensor, sigmas: Tensor) -> Tensor:
    """Mean squared error of the v-prediction B T C H W, which equals EDM's lambda(sigma)-weighted denoising error.

    The target F = (clean - c_skip * x) / c_out is the velocity (noise - sigma * clean) / sqrt(sigma^2 + 1), and
    lambda(sigma) * c_out^2 = 1.
    """
    spread = per_clip(sigmas, clean)
    velocity = (noise - spread * clean) / (spread**2 + 1).sqrt()
    return (prediction.to(clean) - velocity).square().mean()
