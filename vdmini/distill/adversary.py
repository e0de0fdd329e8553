"""The multi-frame content adversary at work: the teacher's frozen first half, its heads and their optimiser."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.func import functional_call

from vdmini.conditioning import Conditioning
from vdmini.discriminator import DiscriminatorHeads
from vdmini.distill.batch import Batch
from vdmini.distill.processes import Processes
from vdmini.distill.settings import DistillSettings
from vdmini.losses import mca_discriminator_loss, mca_generator_loss, r1_penalty
from vdmini.tasks.base import Task


class Adversary:
    """Scores a student's denoised clips; its backbone is the teacher itself, so it costs no memory of its own.

    The heads are small. Every process holds them whole and averages their gradients by hand, which works the same
    under DDP, FSDP and without either.
    """

    def __init__(
        self,
        processes: Processes,
        teacher: nn.Module,
        conditioning: Conditioning,
        task: Task,
        embedding_channels: int,
        settings: DistillSettings,
    ) -> None:
        self.processes, self.teacher, self.conditioning = processes, teacher, conditioning
        self.task, self.settings = task, settings
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.seed)
            heads = DiscriminatorHeads(conditioning.encoder_channels(teacher), embedding_channels)
        self.heads = heads.to(next(teacher.parameters()).device)
        self.optimizer = torch.optim.AdamW(self.heads.parameters(), lr=settings.head_learning_rate, betas=(0.5, 0.99))

    def features(self, clean: Tensor, batch: Batch) -> list[Tensor]:
        """What the teacher's first half sees in clean latents B T C H W, noised anew: (B T) C H W maps."""
        noisy = self.task.noisy(clean, batch.adversary_noise, batch.adversary_levels)
        network_input, timesteps = self.task.network_input(noisy, batch.adversary_levels)
        arguments = self.conditioning.denoiser_inputs(self.teacher, network_input, timesteps, batch.conditions)
        # A teacher in half precision has half-precision features, and the heads train in single.
        return [each.float() for each in self.conditioning.encoder_features(self.teacher, arguments)]

    def student_loss(self, features: list[Tensor], batch: Batch) -> Tensor:
        """The student's side of the loss; the heads get no gradient from it."""
        frozen = {name: weight.detach() for name, weight in self.heads.named_parameters()}
        scores: Tensor = functional_call(self.heads, frozen, (features, *self._conditions(batch, features)))
        return mca_generator_loss(scores)

    def heads_loss(self, student: list[Tensor], real: list[Tensor], batch: Batch) -> tuple[Tensor, Tensor]:
        """The heads' own hinge loss and their R1 penalty, 0 where it is off; neither reaches a network."""
        student = [each.detach() for each in student]
        penalised = self.settings.lambda_r1 > 0
        real = [each.detach().requires_grad_(penalised) for each in real]
        conditions = self._conditions(batch, real)
        real_scores = self.heads(real, *conditions)
        hinge = mca_discriminator_loss(self.heads(student, *conditions), real_scores)
        return hinge, r1_penalty(real_scores, real) if penalised else torch.zeros_like(hinge)

    def step(self) -> Tensor:
        """Average the heads' gradients over all processes and take a step; their norm before clipping."""
        gradients = [weight.grad for weight in self.heads.parameters() if weight.grad is not None]
        averaged = self.processes.mean(torch.cat([gradient.flatten() for gradient in gradients]))
        for gradient, mean in zip(gradients, averaged.split([each.numel() for each in gradients]), strict=True):
            gradient.copy_(mean.view_as(gradient))
        norm = nn.utils.clip_grad_norm_(self.heads.parameters(), self.settings.gradient_clip)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return norm

    def _conditions(self, batch: Batch, features: list[Tensor]) -> tuple[Tensor, Tensor, int]:
        # Maps may show a frame of the condition before those that are made.
        frames = len(features[0]) // len(batch.adversary_levels)
        return batch.adversary_levels, self.conditioning.condition_embedding(batch.conditions), frames
