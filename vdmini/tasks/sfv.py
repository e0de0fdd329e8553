"""`sfv`: one-step generation as SF-V trains it (arXiv 2406.04324): reconstruction here, the adversary in the loop."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from vdmini.tasks.base import Noised, Teaching
from vdmini.tasks.edm import SigmaTask
from vdmini.tasks.schedule import require_positive


@dataclass(frozen=True)
class SfvTask(SigmaTask):
    """Levels are sigmas: one of 2.27, 70.5 and 700, the last being the one that a clip is made from in one step.

    The generator's are `generator_steps` - 1 of a Karras schedule, equally likely; the adversary's are the
    `adversary_steps` - 1 of a finer one, log-normal (SF-V, equations 5 and 7). SF-V writes P_std = -1: with its sign,
    equation 7 is positive. The huber constant, which SF-V does not publish, is that of Song and Dhariwal 2023
    (arXiv 2310.14189).
    """

    generator_steps: int = 4
    sigma_min: float = 0.002
    sigma_max: float = 700.0
    rho: float = 7.0
    reconstruction_weight: float = 0.1
    huber_constant: float = 0.00054
    adversary_steps: int = 1000
    adversary_mean: float = -1.0
    adversary_std: float = 1.0

    def __post_init__(self) -> None:
        require_positive(self, "sigma_min", "rho", "reconstruction_weight", "huber_constant", "adversary_std")
        if not self.sigma_min < self.sigma_max < math.inf:
            raise ValueError(f"sigma_max must be above sigma_min = {self.sigma_min}, not {self.sigma_max}")
        for option in ("generator_steps", "adversary_steps"):
            if getattr(self, option) < 2:
                raise ValueError(f"{option} must be at least 2, not {getattr(self, option)}")

    def draw_levels(self, count: int, generator: torch.Generator) -> Tensor:
        sigmas = karras_sigmas(self.generator_steps, self.sigma_min, self.sigma_max, self.rho)[1:]
        return sigmas[torch.randint(len(sigmas), (count,), generator=generator, device="cpu")].float()

    def draw_adversary_levels(self, count: int, generator: torch.Generator) -> Tensor:
        sigmas = karras_sigmas(self.adversary_steps, self.sigma_min, self.sigma_max, self.rho)
        shares = discretised_log_normal(sigmas, self.adversary_mean, self.adversary_std)
        uniform = torch.rand(count, dtype=torch.float64, generator=generator, device="cpu")
        return sigmas[1:][torch.searchsorted(shares.cumsum(0)[:-1], uniform)].float()

    def loss(self, sample: Noised, prediction: Tensor, teaching: Teaching) -> Tensor:
        """`reconstruction_loss` of what the student makes of the noisy clip, times its weight."""
        noisy = self.noisy(sample.clean, sample.noise, sample.levels)
        denoised = self.denoised(prediction, noisy, sample.levels)
        return self.reconstruction_weight * reconstruction_loss(denoised, sample.clean, self.huber_constant)


def karras_sigmas(steps: int, sigma_min: float, sigma_max: float, rho: float) -> Tensor:
    """`steps` noise levels from `sigma_min` up to `sigma_max`, float64 on the CPU (Karras et al. 2022, equation 5)."""
    ramp = torch.linspace(0, 1, steps, dtype=torch.float64, device="cpu")
    low, high = sigma_min ** (1 / rho), sigma_max ** (1 / rho)
    return (low + ramp * (high - low)) ** rho


def discretised_log_normal(sigmas: Tensor, mean: float, std: float) -> Tensor:
    """The probability of each of N rising levels but the lowest, N - 1 values of sum 1 (SF-V, equation 7).

    It is that which ln(sigma) ~ N(mean, std) puts between the level and the next lower one.
    """
    below = torch.erf((sigmas.log() - mean) / (math.sqrt(2) * std))
    shares = below.diff()
    return shares / shares.sum()


def reconstruction_loss(denoised: Tensor, clean: Tensor, constant: float) -> Tensor:
    """The pseudo-Huber distance of each clip B T C H W from the clean one, averaged over clips (SF-V, equation 9).

    sqrt(|d|^2 + c^2) - c with c = `constant` * sqrt(D), all divided by sqrt(D), where D is the size of a clip: so its
    weight means the same for clips of any size.
    """
    distance = (denoised - clean).square().flatten(1).mean(1)
    return ((distance + constant**2).sqrt() - constant).mean()
