"""`consistency`: latent consistency distillation as T2V-Turbo-v2 is trained.

Luo et al. 2023 (arXiv 2310.04378) with the settings of Li et al. 2024 (arXiv 2410.05677), without their rewards and
their motion prior.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from vdmini.tasks.base import Noised, Task, Teaching
from vdmini.tasks.schedule import (
    TRAINING_TIMESTEPS,
    cumulative_alphas,
    log_normal,
    per_clip,
    require_positive,
    scales_at,
    timesteps_of,
)


@dataclass(frozen=True)
class ConsistencyTask(Task):
    """Levels are timesteps: 4, 9, ..., 999 with 200 solver steps; predictions are of the noise.

    Guidance scales follow T2V-Turbo-v2 in the convention of latent consistency models: w adds w times the difference
    that the condition makes, and 0 is the teacher's own prediction. The adversary sees clips at the timesteps whose
    noise-to-signal ratios are nearest to SF-V's log-normal sigmas.
    """

    solver_steps: int = 200
    guidance_min: float = 5.0
    guidance_max: float = 15.0
    huber_constant: float = 1e-3
    sigma_data: float = 0.5
    timestep_scaling: float = 10.0
    beta_start: float = 0.00085
    beta_end: float = 0.012
    adversary_mean: float = -1.0
    adversary_std: float = 1.0

    def __post_init__(self) -> None:
        require_positive(
            self, "huber_constant", "sigma_data", "timestep_scaling", "beta_start", "beta_end", "adversary_std"
        )
        if self.solver_steps < 1 or TRAINING_TIMESTEPS % self.solver_steps:
            raise ValueError(f"solver_steps must divide {TRAINING_TIMESTEPS}, which {self.solver_steps} does not")
        if not self.guidance_min <= self.guidance_max:
            raise ValueError(f"guidance_max {self.guidance_max} is below guidance_min {self.guidance_min}: swap them")

    @property
    def alphas(self) -> Tensor:
        """The noise schedule, see `cumulative_alphas`."""
        return cumulative_alphas(self.beta_start, self.beta_end)

    def draw_levels(self, count: int, generator: torch.Generator) -> Tensor:
        """Draw `count` of the solver's timesteps, equally likely, float32."""
        index = torch.randint(self.solver_steps, (count,), generator=generator, device="cpu")
        return ((index + 1) * (TRAINING_TIMESTEPS // self.solver_steps) - 1).float()

    def draw_adversary_levels(self, count: int, generator: torch.Generator) -> Tensor:
        return timesteps_of(log_normal(count, self.adversary_mean, self.adversary_std, generator), self.alphas)

    def draw_guidance(self, count: int, generator: torch.Generator) -> Tensor:
        """Draw `count` guidance scales, float32, uniform from `guidance_min` to `guidance_max`."""
        uniform = torch.rand(count, generator=generator, device="cpu")
        return self.guidance_min + (self.guidance_max - self.guidance_min) * uniform

    def noisy(self, clean: Tensor, noise: Tensor, levels: Tensor) -> Tensor:
        """sqrt(alpha) * clean + sqrt(1 - alpha) * noise, B T C H W."""
        signal, spread = scales_at(levels, self.alphas, clean)
        return signal * clean + spread * noise

    def denoised(self, prediction: Tensor, noisy: Tensor, levels: Tensor) -> Tensor:
        """The clean latents B T C H W that a predicted noise implies, without the boundary scalings."""
        signal, spread = scales_at(levels, self.alphas, noisy)
        return (noisy - spread * prediction.to(noisy)) / signal

    def consistency(self, prediction: Tensor, noisy: Tensor, levels: Tensor) -> Tensor:
        """What the consistency function makes of `noisy` B T C H W by a network's prediction: `noisy` at timestep 0."""
        c_skip, c_out = boundary_scalings(levels, self.sigma_data, self.timestep_scaling)
        return per_clip(c_skip, noisy) * noisy + per_clip(c_out, noisy) * self.denoised(prediction, noisy, levels)

    def loss(self, sample: Noised, prediction: Tensor, teaching: Teaching) -> Tensor:
        """How far the student's answers differ between a timestep and the one that the teacher's solver steps to.

        The later answer has no gradient. The solver follows the teacher with classifier-free guidance where an
        unconditional teacher is given, and the teacher's own prediction where not, as for a teacher whose guidance is
        embedded.

        Raises:
            ValueError: an unconditional teacher is given, but no guidance scales.
        """
        noisy = self.noisy(sample.clean, sample.noise, sample.levels)
        answer = self.consistency(prediction, noisy, sample.levels)
        with torch.no_grad():
            estimate = teaching.teacher_prediction.to(noisy)
            if teaching.unconditional_teacher is not None:
                if teaching.guidance is None:
                    raise ValueError("classifier-free guidance needs a scale for each clip: pass draw_guidance's")
                without = teaching.unconditional_teacher(*self.network_input(noisy, sample.levels)).to(noisy)
                estimate = guided(estimate, without, teaching.guidance)
            following = self.following(sample.levels)
            less_noisy = ddim_step(estimate, noisy, sample.levels, following, self.alphas)
            later = teaching.student(*self.network_input(less_noisy, following))
            target = self.consistency(later, less_noisy, following)
        return huber_loss(answer, target, self.huber_constant)

    def following(self, levels: Tensor) -> Tensor:
        """The timesteps B that the solver steps to: the next lower ones, and 0 from the lowest."""
        return (levels - TRAINING_TIMESTEPS // self.solver_steps).clamp(min=0)


def guided(prediction: Tensor, unconditional: Tensor, scales: Tensor) -> Tensor:
    """Classifier-free guidance of predictions B T C H W by `scales` B (arXiv 2310.04378, section 4.2)."""
    return prediction + per_clip(scales, prediction) * (prediction - unconditional)


def boundary_scalings(timesteps: Tensor, sigma_data: float, timestep_scaling: float) -> tuple[Tensor, Tensor]:
    """c_skip and c_out B, which make the consistency function the identity at timestep 0.

    c_skip = sd^2 / (s^2 + sd^2) and c_out = s / sqrt(s^2 + sd^2) at s = `timestep_scaling` * t (arXiv 2303.01469,
    appendix C, as latent consistency models scale it).
    """
    scaled = timestep_scaling * timesteps
    return sigma_data**2 / (scaled**2 + sigma_data**2), scaled / (scaled**2 + sigma_data**2).sqrt()


def ddim_step(noise: Tensor, noisy: Tensor, timesteps: Tensor, following: Tensor, alphas: Tensor) -> Tensor:
    """Step latents B T C H W by their predicted noise from `timesteps` B to `following` B (arXiv 2010.02502, eq. 12).

    sqrt(alpha') * x_0 + sqrt(1 - alpha') * noise, without fresh noise.
    """
    signal, spread = scales_at(timesteps, alphas, noisy)
    following_signal, following_spread = scales_at(following, alphas, noisy)
    return following_signal * (noisy - spread * noise) / signal + following_spread * noise


def huber_loss(prediction: Tensor, target: Tensor, constant: float) -> Tensor:
    """The mean of sqrt(d^2 + c^2) - c over all differences d, as T2V-Turbo-v2 takes it."""
    return (((prediction - target).square() + constant**2).sqrt() - constant).mean()
