"""The distillation loop: a pruned student learns from its teacher by the ICMD loss, and resumes exactly."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from accelerate import Accelerator
from diffusers import UNetSpatioTemporalConditionModel
from torch import Tensor, nn

from vdmini.data import EncodedClips
from vdmini.discriminator import DiscriminatorHeads
from vdmini.features import FeatureTap, feature_pairs
from vdmini.losses import icd_loss, mca_discriminator_loss, mca_generator_loss
from vdmini.models.svd import encoder_features
from vdmini.plan import PruningPlan
from vdmini.tasks import EdmTask, denoised_from_prediction, edm_loss, noisy_input


@dataclass(frozen=True)
class DistillSettings:
    """How long and how hard to distil; the loss weights default to the paper's."""

    steps: int
    batch_size: int
    learning_rate: float = 1e-5
    head_learning_rate: float = 1e-4
    lambda_icd: float = 0.1
    lambda_mca: float = 1.0
    discriminator_warmup: int = 0
    sigma_mean: float = 0.7
    sigma_std: float = 1.6
    ema_decay: float = 0.95
    gradient_clip: float = 1.0
    gradient_checkpointing: bool = False
    mixed_precision: Literal["no", "bf16"] = "no"
    checkpoint_every: int = 100
    seed: int = 0


@dataclass(frozen=True)
class StepLosses:
    """The losses of one step, before their weights; `mca` and `discriminator` are 0 when the adversary is off."""

    step: int
    task: float
    icd: float
    mca: float
    discriminator: float


@dataclass(frozen=True)
class Distilled:
    """The student's exponential moving average and the losses of every step."""

    student: UNetSpatioTemporalConditionModel
    losses: tuple[StepLosses, ...]


class DivergedError(RuntimeError):
    """A loss stopped being finite; the checkpoint named in the message is the last good one."""


@dataclass(frozen=True)
class NoisyBatch:
    """One training batch: clean and noisy latents B T C H W, their noise levels B and the image condition."""

    clean: Tensor
    noise: Tensor
    sigmas: Tensor
    condition: Tensor
    embeddings: Tensor
    time_ids: Tensor
    adversary_noise: Tensor
    adversary_sigmas: Tensor


def distill(
    teacher: UNetSpatioTemporalConditionModel,
    student: UNetSpatioTemporalConditionModel,
    plan: PruningPlan,
    clips: EncodedClips,
    settings: DistillSettings,
    checkpoint: Path,
    on_step: Callable[[StepLosses], None] = lambda losses: None,
) -> Distilled:
    """Train `student` in place against `teacher` and return its moving average.

    All randomness of a step follows from (seed, step), so a run continued from `checkpoint` equals an unbroken one.

    Raises:
        DivergedError: a loss is not finite.
    """
    accelerator = Accelerator(cpu=teacher.device.type == "cpu")
    training = _Training.start(accelerator, teacher, student, plan, clips, settings)
    training.load(checkpoint)
    while training.step < settings.steps:
        losses = training.train_step(clips)
        values = (losses.task, losses.icd, losses.mca, losses.discriminator, training.gradient_norm)
        if not all(math.isfinite(value) for value in values):
            kept = (
                f"the last good checkpoint is {checkpoint}" if checkpoint.exists() else "no checkpoint was written yet"
            )
            reason = f"a loss or the gradient norm {training.gradient_norm} is not finite ({losses})"
            raise DivergedError(f"step {losses.step}: {reason}; {kept}; lower the learning rate")
        on_step(losses)
        if training.step % settings.checkpoint_every == 0 and training.step < settings.steps:
            training.save(checkpoint)
    return Distilled(training.average.eval(), tuple(training.history))


class _Training:
    """Everything that changes while training, saved and loaded as one."""

    def __init__(
        self,
        accelerator: Accelerator,
        teacher: UNetSpatioTemporalConditionModel,
        student: UNetSpatioTemporalConditionModel,
        heads: DiscriminatorHeads,
        plan: PruningPlan,
        settings: DistillSettings,
    ) -> None:
        self.accelerator, self.settings, self.plan = accelerator, settings, plan
        self.teacher, self.bare_student, self.bare_heads = teacher, student, heads
        self.average = copy.deepcopy(student).requires_grad_(False)
        self.step = 0
        self.gradient_norm = 0.0
        self.history: list[StepLosses] = []
        student_optimizer = torch.optim.AdamW(student.parameters(), lr=settings.learning_rate, weight_decay=1e-2)
        head_optimizer = torch.optim.AdamW(heads.parameters(), lr=settings.head_learning_rate, betas=(0.5, 0.99))
        self.student, self.heads, self.student_optimizer, self.head_optimizer = accelerator.prepare(
            student, heads, student_optimizer, head_optimizer
        )

    @classmethod
    def start(
        cls,
        accelerator: Accelerator,
        teacher: UNetSpatioTemporalConditionModel,
        student: UNetSpatioTemporalConditionModel,
        plan: PruningPlan,
        clips: EncodedClips,
        settings: DistillSettings,
    ) -> _Training:
        teacher.requires_grad_(False).eval()
        student.requires_grad_(True).train()
        if settings.gradient_checkpointing:
            student.enable_gradient_checkpointing()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.seed)
            heads = DiscriminatorHeads(teacher.config.block_out_channels, clips.embeddings.shape[-1])
        return cls(accelerator, teacher, student, heads.to(teacher.device), plan, settings)

    def train_step(self, clips: EncodedClips) -> StepLosses:
        settings = self.settings
        batch = self._draw_batch(clips)
        # Not the accelerator's own autocast, whose precision is one for the whole process. No lowered copies are kept,
        # since the heads change between their own step and the student's scores.
        lowered = settings.mixed_precision == "bf16"
        with torch.autocast(self.teacher.device.type, torch.bfloat16, enabled=lowered, cache_enabled=False):
            network_input, timesteps = noisy_input(batch.clean, batch.noise, batch.sigmas)
            conditioned = torch.cat([network_input, batch.condition], dim=2)
            arguments = (conditioned, timesteps, batch.embeddings, batch.time_ids)
            student_stages, teacher_stages = zip(*feature_pairs(self.plan), strict=True)
            with torch.no_grad(), FeatureTap(self.teacher, teacher_stages) as teacher_tap:
                teacher_prediction = self.teacher(*arguments).sample
            with FeatureTap(self.bare_student, student_stages) as student_tap:
                student_prediction = self.student(*arguments).sample
            task = edm_loss(student_prediction, batch.clean, batch.noise, batch.sigmas)
            icd = icd_loss(student_tap.features, teacher_tap.features)
            noisy = batch.clean + batch.sigmas.view(-1, 1, 1, 1, 1) * batch.noise
            student_clean = denoised_from_prediction(student_prediction.float(), noisy, batch.sigmas)
            teacher_clean = denoised_from_prediction(teacher_prediction.float(), noisy, batch.sigmas)
            discriminator, mca = self._adversarial_losses(student_clean, teacher_clean, batch)
        self._set_learning_rate()
        total = task + settings.lambda_icd * icd
        if self.step >= settings.discriminator_warmup:
            total = total + settings.lambda_mca * mca
        self.accelerator.backward(total)
        norm = self.accelerator.clip_grad_norm_(self.student.parameters(), settings.gradient_clip)
        self.gradient_norm = float(norm)
        self.student_optimizer.step()
        self.student_optimizer.zero_grad()
        self.step += 1
        self._update_average()
        losses = StepLosses(self.step, task.item(), icd.item(), mca.item(), discriminator.item())
        self.history.append(losses)
        return losses

    def _adversarial_losses(
        self, student_clean: Tensor, teacher_clean: Tensor, batch: NoisyBatch
    ) -> tuple[Tensor, Tensor]:
        """Take one discriminator step, then score the student: (discriminator loss, generator loss)."""
        if self.settings.lambda_mca == 0:
            return torch.zeros(()), torch.zeros(())
        with torch.no_grad():
            real_features = self._encoder_features(teacher_clean, batch)
            fake_features = self._encoder_features(student_clean.detach(), batch)
        real_scores = self._head_scores(real_features, batch)
        fake_scores = self._head_scores(fake_features, batch)
        discriminator = mca_discriminator_loss(fake_scores, real_scores)
        # Cleared before, not after: the student's backward pass leaves its own gradients on the heads.
        self.head_optimizer.zero_grad()
        self.accelerator.backward(discriminator)
        self.accelerator.clip_grad_norm_(self.heads.parameters(), self.settings.gradient_clip)
        self.head_optimizer.step()
        mca = mca_generator_loss(self._head_scores(self._encoder_features(student_clean, batch), batch))
        return discriminator.detach(), mca

    def _encoder_features(self, clean: Tensor, batch: NoisyBatch) -> list[Tensor]:
        scaled, timesteps = noisy_input(clean, batch.adversary_noise, batch.adversary_sigmas)
        conditioned = torch.cat([scaled, batch.condition], dim=2)
        return encoder_features(self.teacher, conditioned, timesteps, batch.embeddings, batch.time_ids)

    def _head_scores(self, features: list[Tensor], batch: NoisyBatch) -> Tensor:
        frames = batch.clean.shape[1]
        scores: Tensor = self.heads(features, batch.adversary_sigmas, batch.embeddings.mean(1), frames)
        return scores

    def _draw_batch(self, clips: EncodedClips) -> NoisyBatch:
        """Draw the whole batch of this step on the CPU and keep this process's share of it."""
        settings, size = self.settings, self.settings.batch_size
        generator = torch.Generator().manual_seed(settings.seed * 1_000_003 + self.step)
        chosen = torch.randint(0, len(clips), (size,), generator=generator)
        clean = clips.latents[chosen] * clips.scaling_factor
        condition = clips.condition[chosen][:, None].expand(-1, clean.shape[1], -1, -1, -1)
        adversary = EdmTask(sigma_mean=-1.0, sigma_std=1.0)
        task = EdmTask(settings.sigma_mean, settings.sigma_std)
        batch = (
            clean,
            torch.randn(clean.shape, generator=generator),
            task.sample_sigmas(size, generator),
            condition,
            clips.embeddings[chosen],
            clips.time_ids[chosen],
            torch.randn(clean.shape, generator=generator),
            adversary.sample_sigmas(size, generator),
        )
        rank, world = self.accelerator.process_index, self.accelerator.num_processes
        return NoisyBatch(*(part[rank::world].to(self.teacher.device) for part in batch))

    def _set_learning_rate(self) -> None:
        """Warm up over 3 % of the steps, then fall as a cosine to a tenth."""
        progress = self.step / self.settings.steps
        factor = min(1.0, (progress + 1 / self.settings.steps) / 0.03) * (0.55 + 0.45 * math.cos(math.pi * progress))
        for group in self.student_optimizer.param_groups:
            group["lr"] = self.settings.learning_rate * factor

    @torch.no_grad()
    def _update_average(self) -> None:
        decay = min(self.settings.ema_decay, (1 + self.step) / (10 + self.step))
        for averaged, current in zip(self.average.parameters(), self.bare_student.parameters(), strict=True):
            averaged.lerp_(current, 1 - decay)

    def _parts(self) -> dict[str, nn.Module | torch.optim.Optimizer]:
        return {
            "student": self.bare_student,
            "average": self.average,
            "heads": self.bare_heads,
            "student_optimizer": self.student_optimizer,
            "head_optimizer": self.head_optimizer,
        }

    def save(self, checkpoint: Path) -> None:
        """Write the whole state beside `checkpoint` and move it there, so a kill leaves the old one or the new one."""
        if not self.accelerator.is_main_process:
            return
        state: dict[str, object] = {name: part.state_dict() for name, part in self._parts().items()}
        state["step"] = self.step
        state["history"] = torch.tensor(
            [[entry.task, entry.icd, entry.mca, entry.discriminator] for entry in self.history], dtype=torch.float64
        )
        partial = checkpoint.with_suffix(".partial")
        torch.save(state, partial)
        partial.replace(checkpoint)

    def load(self, checkpoint: Path) -> None:
        """Continue from `checkpoint` where there is one."""
        if not checkpoint.exists():
            return
        state = torch.load(checkpoint, map_location=self.teacher.device, weights_only=True)
        for name, part in self._parts().items():
            part.load_state_dict(state[name])
        self.step = state["step"]
        self.history = [StepLosses(step, *row) for step, row in enumerate(state["history"].tolist(), start=1)]
