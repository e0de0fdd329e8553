"""One step of distillation, and everything that changes while training, saved and loaded as one."""

from __future__ import annotations

import contextlib
import copy
import importlib
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch
from accelerate.utils import send_to_device
from diffusers.optimization import get_scheduler
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.tensor import DTensor

from vdmini.conditioning import conditioning_of
from vdmini.cost import on_meta
from vdmini.distill.adversary import Adversary
from vdmini.distill.average import Average, held
from vdmini.distill.batch import Batch, TrainingClips, draw_share
from vdmini.distill.processes import Processes
from vdmini.distill.settings import DistillSettings, StepLosses
from vdmini.features import FeatureTap, feature_pairs
from vdmini.files import replacing
from vdmini.finite import is_finite
from vdmini.losses import adaptive_weight, icd_loss, output_distillation_loss
from vdmini.plan import PruningPlan
from vdmini.tasks.base import Predict, Task, Teaching

WHOLE = StateDictOptions(full_state_dict=True, cpu_offload=True)
BALANCE_DECAY = 0.9
# Settings that change memory, speed or what is written meanwhile, and no result but by rounding.
WITHOUT_EFFECT = ("micro_batch_size", "gradient_checkpointing", "checkpoint_every")


class Training:
    """A student in training against its teacher; use it as a context, since it listens in on both networks."""

    def __init__(
        self,
        processes: Processes,
        teacher: nn.Module,
        student: nn.Module,
        plan: PruningPlan,
        clips: TrainingClips,
        task: Task,
        settings: DistillSettings,
    ) -> None:
        settings.share(processes.count)
        self.processes, self.settings, self.clips, self.task = processes, settings, clips, task
        self.plan = plan
        self.teacher = teacher.to(processes.device).requires_grad_(False).eval()
        self.bare_student = student.requires_grad_(True).eval()
        if settings.gradient_checkpointing:
            # The teacher too: the adversary's gradient runs through its first half.
            for network in (teacher, student):
                network.enable_gradient_checkpointing()  # type: ignore[operator]
        self.conditioning = conditioning_of(teacher)
        self.template = on_meta(student)
        embedding = self.conditioning.condition_embedding(clips.batch(torch.zeros(1, dtype=torch.long)))
        self.adversary = Adversary(processes, teacher, self.conditioning, task, embedding.shape[1], settings)
        self.step, self.balance, self.history = 0, 1.0, list[StepLosses]()
        # Whose gradients were not finite in the newest step.
        self.broken: tuple[str, ...] = ()
        self.student = processes.spread(student)
        self.optimizer, self.rate_factor = _optimizer(student, settings), _rate_factor(settings)
        self.average = Average(self.bare_student)
        # Last, so that nothing listens when anything above is refused.
        student_stages, teacher_stages = zip(*feature_pairs(plan), strict=True)
        self.student_tap = FeatureTap(student, student_stages)
        self.teacher_tap = FeatureTap(teacher, teacher_stages)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.student_tap.close()
        self.teacher_tap.close()

    def train_step(self) -> None:
        """Train on the next batch and note its losses."""
        settings, processes = self.settings, self.processes
        share = settings.share(processes.count)
        count = share // (settings.micro_batch_size or share)
        sums = torch.zeros(7, dtype=torch.float64, device=processes.device)
        parts = draw_share(self.clips, self.task, settings, self.step, processes.index, processes.count)
        for index, batch in enumerate(parts):
            last = index == count - 1
            with contextlib.nullcontext() if last else processes.accumulate(self.student):
                sums += self.backward(send_to_device(batch, processes.device), 1 / count) / count
        task, icd, mca, output, heads, task_pull, mca_pull = processes.mean(sums).tolist()
        norm = self.gradient_norm()
        self.broken = () if norm.isfinite() else tuple(_not_finite(self.bare_student))
        if not self.update_weights(norm).isfinite():
            self.broken += ("the discriminator's heads",)
        if task_pull:
            now = float(adaptive_weight(math.sqrt(task_pull), math.sqrt(mca_pull)))
            self.balance = BALANCE_DECAY * self.balance + (1 - BALANCE_DECAY) * now
        self.history.append(StepLosses(self.step, task, icd, mca, output, heads, float(norm)))

    def gradient_norm(self) -> Tensor:
        """The norm of the gradients that `backward` left to the student."""
        norm = nn.utils.get_total_norm(
            [weight.grad for weight in self.bare_student.parameters() if weight.grad is not None]
        )
        return norm.full_tensor() if isinstance(norm, DTensor) else norm

    def update_weights(self, norm: Tensor) -> Tensor:
        """Take a step with the gradients that `backward` left, the student's of this norm; the norm of the heads'."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.settings.learning_rate * self.rate_factor(self.step)
        nn.utils.clip_grads_with_norm_(self.bare_student.parameters(), self.settings.gradient_clip, norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        heads_norm = self.adversary.step() if self.settings.lambda_mca else torch.zeros(())
        self.step += 1
        self.average.update(self.bare_student, min(self.settings.ema_decay, (1 + self.step) / (10 + self.step)))
        return heads_norm

    def backward(self, batch: Batch, share: float) -> Tensor:
        """Add `share` of a micro-batch's gradients to both sides; its losses, and how hard two of them pull."""
        settings = self.settings
        # No lowered copies are kept, since the heads are called both with and without gradients.
        lowered = settings.mixed_precision == "bf16"
        with torch.autocast(self.processes.device.type, torch.bfloat16, enabled=lowered, cache_enabled=False):
            noisy = self.task.noisy(batch.sample.clean, batch.sample.noise, batch.sample.levels)
            network_input, timesteps = self.task.network_input(noisy, batch.sample.levels)
            with torch.no_grad():
                teacher_prediction = self._predict(self.teacher, batch.conditions)(network_input, timesteps)
            teacher_features = self.teacher_tap.features
            prediction = self._predict(self.student, batch.conditions)(network_input, timesteps)
            icd = output = torch.zeros(())
            if settings.lambda_icd:
                icd = icd_loss(self.student_tap.features, teacher_features)
            if settings.lambda_output:
                output = output_distillation_loss(prediction, teacher_prediction)
            task = self.task.loss(batch.sample, prediction, self._teaching(batch, teacher_prediction))
            mca, heads = self._adversarial(prediction, teacher_prediction, noisy, batch, share)
        total = task + settings.lambda_icd * icd + settings.lambda_output * output
        # The squared norms of both losses' gradients at the student's output.
        pulls = [torch.zeros(()), torch.zeros(())]
        if settings.lambda_mca and self.step >= settings.discriminator_warmup:
            if settings.balance == "adaptive":
                gradients = [torch.autograd.grad(loss, prediction, retain_graph=True)[0] for loss in (task, mca)]
                pulls = [gradient.double().square().sum() for gradient in gradients]
            total = total + settings.lambda_mca * self.balance * mca
        (total * share).backward()
        losses = (task, icd, mca, output, heads, *pulls)
        return torch.stack([loss.detach().double().to(self.processes.device) for loss in losses])

    def _adversarial(
        self, prediction: Tensor, teacher_prediction: Tensor, noisy: Tensor, batch: Batch, share: float
    ) -> tuple[Tensor, Tensor]:
        """The student's adversarial loss, and the heads' own, whose gradient is added to the heads at once."""
        if not self.settings.lambda_mca:
            return torch.zeros(()), torch.zeros(())
        levels = batch.sample.levels
        made = self.adversary.features(self.task.denoised(prediction.float(), noisy, levels), batch)
        real = batch.sample.clean
        if self.settings.real == "teacher":
            real = self.task.denoised(teacher_prediction.float(), noisy, levels)
        with torch.no_grad():
            real_features = self.adversary.features(real, batch)
        hinge, penalty = self.adversary.heads_loss(made, real_features, batch)
        ((hinge + self.settings.lambda_r1 * penalty) * share).backward()
        return self.adversary.student_loss(made, batch), hinge

    def _predict(self, network: nn.Module, conditions: Mapping[str, Tensor]) -> Predict:
        bare = self.bare_student if network is self.student else network

        def predict(network_input: Tensor, timesteps: Tensor) -> Tensor:
            arguments = self.conditioning.denoiser_inputs(bare, network_input, timesteps, conditions)
            return self.conditioning.prediction(network(**arguments), network_input)

        return predict

    def _teaching(self, batch: Batch, prediction: Tensor) -> Teaching:
        clean, without = batch.sample.clean, None
        if self.clips.unconditional is not None:
            empty = {
                name: value.expand(len(clean), *value.shape).to(clean.device)
                for name, value in self.clips.unconditional.items()
            }
            without = self._predict(self.teacher, {**batch.conditions, **empty})
        student = self._predict(self.student, batch.conditions)
        return Teaching(prediction, batch.conditions.get("guidance"), student, without)

    def averaged_student(self, average: Mapping[str, Tensor]) -> nn.Module:
        """The moving average, gathered, as a network of its own."""
        student = copy.deepcopy(self.template)
        # Buffers first, saved with the weights or not: the template has none of their values.
        for name, value in self.bare_student.named_buffers():
            owner, _, own = name.rpartition(".")
            setattr(student.get_submodule(owner), own, value.clone())
        student.load_state_dict({**student.state_dict(), **average}, assign=True)
        return student.to(next(self.teacher.parameters()).device).requires_grad_(False).eval()

    def save(self, checkpoint: Path) -> None:
        """Write the whole state beside `checkpoint` and move it there, so a kill leaves the old one or the new one.

        The file does not depend on the number of processes; all of them must call this together.
        """
        state: dict[str, Any] = {
            "configuration": self._configuration(),
            "student": get_model_state_dict(self.bare_student, options=WHOLE),
            "optimizer": get_optimizer_state_dict(self.bare_student, self.optimizer, options=WHOLE),
            "average": self.average.gather(keep=self.processes.index == 0),
            "heads": self.adversary.heads.state_dict(),
            "head_optimizer": self.adversary.optimizer.state_dict(),
            "step": self.step,
            "balance": self.balance,
            "history": torch.tensor([losses.values() for losses in self.history], dtype=torch.float64),
        }
        if self.processes.index == 0:
            with replacing(checkpoint) as partial:
                torch.save(state, partial)
        self.processes.wait()

    def _configuration(self) -> dict[str, Any]:
        """What a checkpoint must share with the training that goes on from it."""
        settings = {name: value for name, value in asdict(self.settings).items() if name not in WITHOUT_EFFECT}
        return {**settings, "plan": self.plan.to_json(), "task": repr(self.task), "clips": len(self.clips)}

    def load(self, checkpoint: Path) -> None:
        """Continue from `checkpoint` where there is one, whatever number of processes wrote it.

        Raises:
            FileNotFoundError: only some of the processes see it.
            ValueError: it is of another plan, task, settings or number of clips.
        """
        found = float(self.processes.mean(torch.tensor(float(checkpoint.exists()), device=self.processes.device)))
        if not found:
            return
        if found < 1:
            raise FileNotFoundError(
                f"{checkpoint} is not there for every process: keep it where all machines read the same files"
            )
        # Mapped, the file is in memory once for all processes of a machine; alone, it is closed again at once.
        state = torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=self.processes.count > 1)
        before, now = state.get("configuration", {}), self._configuration()
        changed = [name for name in now if before.get(name) != now[name]]
        if changed:
            raise ValueError(
                f"{checkpoint} is of a distillation with another {', '.join(changed)}: remove it to begin anew, or give"
                " another place for checkpoints"
            )
        set_model_state_dict(self.bare_student, state["student"], options=WHOLE)
        set_optimizer_state_dict(self.bare_student, self.optimizer, state["optimizer"], options=WHOLE)
        self.average.scatter(state["average"])
        self.adversary.heads.load_state_dict(state["heads"])
        self.adversary.optimizer.load_state_dict(state["head_optimizer"])
        self.step, self.balance = state["step"], state["balance"]
        self.history = [StepLosses(step, *row) for step, row in enumerate(state["history"].tolist(), start=1)]


def _not_finite(network: nn.Module) -> list[str]:
    """The weights whose gradients are not finite, in this process's shard of them."""
    gradients = {name: weight.grad for name, weight in network.named_parameters() if weight.grad is not None}
    return [name for name, gradient in gradients.items() if not is_finite(held(gradient))]


def _rate_factor(settings: DistillSettings) -> Callable[[int], float]:
    """What the learning rate is multiplied by at each step; raises ValueError for an unknown scheduler."""

    def warm_cosine(step: int) -> float:
        progress = step / settings.steps
        return min(1.0, (progress + 1 / settings.steps) / 0.03) * (0.55 + 0.45 * math.cos(math.pi * progress))

    if settings.lr_scheduler == "warm_cosine":
        return warm_cosine
    # Its factors alone are of use: they follow from the step, which a checkpoint keeps.
    unused = torch.optim.SGD([torch.zeros(())], lr=1.0)
    warmup = settings.lr_warmup_steps
    scheduler = get_scheduler(settings.lr_scheduler, unused, num_warmup_steps=warmup, num_training_steps=settings.steps)
    return scheduler.lr_lambdas[0]


def _optimizer(student: nn.Module, settings: DistillSettings) -> torch.optim.Optimizer:
    rate, decay = settings.learning_rate, settings.weight_decay
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(student.parameters(), lr=rate, weight_decay=decay)
    if any(isinstance(weight, DTensor) for weight in student.parameters()):
        raise ValueError("optimizer 'adamw8bit' cannot train shards: launch without --use_fsdp, or take 'adamw'")
    try:
        lowered: torch.optim.Optimizer = importlib.import_module("bitsandbytes").optim.AdamW8bit(
            student.parameters(), lr=rate, weight_decay=decay
        )
    except ImportError as error:
        raise ImportError("optimizer 'adamw8bit' needs bitsandbytes: pip install bitsandbytes") from error
    return lowered
