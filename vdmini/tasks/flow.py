"""`flow`: rectified flow as HunyuanVideo, Wan, LTX-Video and Mochi are trained (arXiv 2209.03003, 2403.03206)."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from vdmini.tasks.base import Noised, Task, Teaching
from vdmini.tasks.schedule import TRAINING_TIMESTEPS, per_clip, require_positive


@dataclass(frozen=True)
class FlowTask(Task):
    """Levels are the noise's share s in [0, 1] of noisy = (1 - s) * clean + s * noise.

    s is drawn logit-normal (Esser et al. 2024, section 3.1), then shifted towards noise. `shift` defaults to that of
    HunyuanVideo's published scheduler, `FlowMatchEulerDiscreteScheduler(shift=7.0)`; Wan's pipeline documents 3 for
    480p and 5 for 720p. The adversary's s are not shifted: their noise-to-signal ratio s / (1 - s) is SF-V's log-normal
    sigma. `guidance` is embedded in every clip, for teachers distilled from guidance; HunyuanVideo's pipeline takes 6.
    `inverted` is Mochi's convention: its network counts timesteps up to clean and predicts the way there. No level is
    drawn beyond `lowest` and `highest`, which for an expert of Wan 2.2 are its own.
    """

    logit_mean: float = 0.0
    logit_std: float = 1.0
    shift: float = 7.0
    guidance: float | None = None
    inverted: bool = False
    adversary_mean: float = -1.0
    adversary_std: float = 1.0
    lowest: float = 0.0
    highest: float = 1.0

    def __post_init__(self) -> None:
        require_positive(self, "logit_std", "shift", "adversary_std")
        if not 0 <= self.lowest < self.highest <= 1:
            raise ValueError(f"levels lie between 0 and 1, not from {self.lowest} to {self.highest}")
        if self.guidance is not None and not math.isfinite(self.guidance):
            raise ValueError(f"guidance must be a finite number, not {self.guidance}")

    def draw_levels(self, count: int, generator: torch.Generator) -> Tensor:
        return self._draw(count, self.logit_mean, self.logit_std, self.shift, generator)

    def draw_adversary_levels(self, count: int, generator: torch.Generator) -> Tensor:
        return self._draw(count, self.adversary_mean, self.adversary_std, 1.0, generator)

    def draw_guidance(self, count: int, generator: torch.Generator) -> Tensor | None:
        """`count` times the guidance scale, float32, as a pipeline takes it; None where none is embedded."""
        return None if self.guidance is None else torch.full((count,), self.guidance, device="cpu")

    def noisy(self, clean: Tensor, noise: Tensor, levels: Tensor) -> Tensor:
        """(1 - s) * clean + s * noise, B T C H W."""
        share = per_clip(levels, clean)
        return (1 - share) * clean + share * noise

    def network_input(self, noisy: Tensor, levels: Tensor) -> tuple[Tensor, Tensor]:
        """The noisy latents as they are, and their timesteps B: 1000 * s."""
        return noisy, TRAINING_TIMESTEPS * (1 - levels if self.inverted else levels)

    def denoised(self, prediction: Tensor, noisy: Tensor, levels: Tensor) -> Tensor:
        """Follow the predicted velocity B T C H W from s to 0 in a straight line."""
        return noisy - per_clip(levels, noisy) * self._velocity(prediction.to(noisy))

    def loss(self, sample: Noised, prediction: Tensor, teaching: Teaching) -> Tensor:
        """See `flow_loss`."""
        return flow_loss(self._velocity(prediction), sample.clean, sample.noise)

    def between(self, lowest: float, highest: float) -> FlowTask:
        return replace(self, lowest=lowest, highest=highest)

    def _draw(self, count: int, mean: float, std: float, shift: float, generator: torch.Generator) -> Tensor:
        if (self.lowest, self.highest) == (0.0, 1.0):
            return shifted(logit_normal(count, mean, std, generator), shift)
        edges = torch.tensor([self.lowest, self.highest], dtype=torch.float64, device="cpu").logit() - math.log(shift)
        levels = shifted(logit_normal(count, mean, std, generator, edges), shift)
        return levels.clamp(self.lowest, self.highest)

    def _velocity(self, prediction: Tensor) -> Tensor:
        return -prediction if self.inverted else prediction


def logit_normal(
    count: int, mean: float, std: float, generator: torch.Generator, edges: Tensor | None = None
) -> Tensor:
    """Draw `count` float32 values in (0, 1) on the CPU with ln(value / (1 - value)) ~ N(mean, std).

    Two `edges` of that logarithm cut off what is not between them.
    """
    normal = torch.randn(count, generator=generator, device="cpu")
    if edges is not None:
        # The same draws, as quantiles of what lies between the edges.
        low, high = torch.special.ndtr((edges - mean) / std)
        normal = torch.special.ndtri(low + (high - low) * torch.special.ndtr(normal.double())).float()
    return (mean + std * normal).sigmoid()


def shifted(levels: Tensor, shift: float) -> Tensor:
    """Multiply the noise-to-signal ratio of `levels` by `shift` (Esser et al. 2024, equation 23): 0 and 1 stay."""
    return shift * levels / (1 + (shift - 1) * levels)


def flow_loss(velocity: Tensor, clean: Tensor, noise: Tensor) -> Tensor:
    """Mean squared error of a velocity B T C H W, whose target is noise - clean at every level (2209.03003, eq. 1)."""
    return (velocity.to(clean) - (noise - clean)).square().mean()
