"""What L_task means for each kind of teacher: noise levels, preconditioning and the regression target.

`edm` follows Karras et al. 2022 (arXiv 2206.00364) as Stable Video Diffusion uses it (arXiv 2311.15127, appendix D):
sigma_data = 1, log-normal sigmas and v-prediction.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class EdmTask:
    """Multi-step diffusion with log-normal sigmas; the defaults are Stable Video Diffusion's own."""

    sigma_mean: float = 0.7
    sigma_std: float = 1.6

    def sample_sigmas(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw `count` noise levels: float32, ln(sigma) ~ N(sigma_mean, sigma_std)."""
        return (self.sigma_mean + self.sigma_std * torch.randn(count, generator=generator)).exp()


def noisy_input(latents: Tensor, noise: Tensor, sigmas: Tensor) -> tuple[Tensor, Tensor]:
    """Noise scaled `latents` B T C H W to `sigmas` (B): the network's input c_in * x and its timestep c_noise (B).

    c_in = 1 / sqrt(sigma^2 + 1) and c_noise = ln(sigma) / 4.
    """
    spread = _per_clip(sigmas, latents)
    noisy = latents + spread * noise
    return noisy / (spread**2 + 1).sqrt(), sigmas.log() / 4


def denoised_from_prediction(prediction: Tensor, noisy: Tensor, sigmas: Tensor) -> Tensor:
    """Turn a v-prediction B T C H W into the latents c_skip * x + c_out * F; `noisy` is x, not yet scaled by c_in."""
    spread = _per_clip(sigmas, noisy)
    return noisy / (spread**2 + 1) - prediction * spread / (spread**2 + 1).sqrt()


def edm_loss(prediction: Tensor, latents: Tensor, noise: Tensor, sigmas: Tensor) -> Tensor:
    """Mean squared error of the v-prediction B T C H W, which equals EDM's lambda(sigma)-weighted denoising error.

    The target F = (latents - c_skip * x) / c_out is the velocity (noise - sigma * latents) / sqrt(sigma^2 + 1),
    and lambda(sigma) * c_out^2 = 1.
    """
    spread = _per_clip(sigmas, latents)
    velocity = (noise - spread * latents) / (spread**2 + 1).sqrt()
    return (prediction.float() - velocity).square().mean()


def _per_clip(sigmas: Tensor, latents: Tensor) -> Tensor:
    return sigmas.view(-1, *[1] * (latents.dim() - 1)).to(latents)
