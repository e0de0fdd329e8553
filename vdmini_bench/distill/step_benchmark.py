"""One step of distillation of a published model at its full size, with random weights: its time and its memory."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn

from vdmini.blocks import ModelInput
from vdmini.conditioning import conditioning_of
from vdmini.cost import count_parameters
from vdmini.distill.processes import Processes
from vdmini.distill.settings import DistillSettings
from vdmini.distill.training import Training
from vdmini.models.registry import family_of
from vdmini.prune import apply_plan
from vdmini.rules import make_plan
from vdmini_bench.distill.estimate import ClipShapes
from vdmini_bench.models.random_models import build_random
from vdmini_bench.speed.timing import time_once

STEPS = 2


@dataclass(frozen=True)
class StepRecord:
    """What `STEPS` steps took; with `out_of_memory` the peak is what there was before the step failed."""

    model: str
    plan: str
    latents: tuple[int, ...]
    teacher_params: int
    student_params: int
    step_seconds: tuple[float, ...]
    peak_bytes: int | None
    losses: dict[str, float]
    out_of_memory: bool


def distill_step(
    name: str, plan: str, device: torch.device, *, channels: int | None = None, size: ModelInput | None = None
) -> StepRecord:
    """Distil a published model for two steps: batch 1, bf16 autocast, gradient checkpointing, all losses.

    `channels` and `size` ask for a narrower model and other latents than the published ones. Raises SuiteError and
    PlanError for what does not fit.
    """
    cuda = device.type == "cuda"
    dtype = torch.bfloat16 if cuda else torch.float32
    model = build_random(name, device=device, dtype=dtype, width=channels, with_pipeline=False)
    teacher = model.denoiser
    pruning = make_plan(model, plan)
    student = apply_plan(teacher, pruning)
    latents = size or family_of(teacher).default_input(teacher)
    clips = random_clip(teacher, latents)
    counts = count_parameters(teacher), count_parameters(student)
    if cuda:
        # The VAE has no part in a step.
        del model
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    settings = DistillSettings(
        steps=1000, batch_size=1, gradient_checkpointing=True, mixed_precision="bf16" if cuda else "no"
    )
    seconds: list[float] = []
    losses: dict[str, float] = {}
    failed = False
    try:
        processes, task = Processes(device), family_of(teacher).default_task(teacher)
        with Training(processes, teacher, student.float().to(device), pruning, clips, task, settings) as training:
            for _ in range(STEPS):
                seconds.append(time_once(training.train_step, device) / 1000)
            losses = asdict(training.history[-1])
    except RuntimeError as error:
        # Libraries beside torch's own allocator say it in their own words.
        if not isinstance(error, torch.cuda.OutOfMemoryError) and "ALLOC_FAILED" not in str(error):
            raise
        failed = True
    peak = torch.cuda.max_memory_allocated(device) if cuda else None
    shape = tuple(clips.shapes["latents"])
    return StepRecord(name, plan, shape, *counts, tuple(seconds), peak, losses, failed)


def random_clip(denoiser: nn.Module, size: ModelInput) -> ClipShapes:
    """One clip of noise with conditions of noise, in the shapes that the family's clips are encoded to."""
    conditioning = conditioning_of(denoiser)
    shapes = conditioning.clip_shapes(denoiser, size)
    generator = torch.Generator().manual_seed(0)

    def value(name: str) -> Tensor:
        if name in ("prompt_mask", "frame_times", "fps"):
            return torch.full(shapes[name], 8.0 if name == "fps" else 1.0)
        return torch.randn(shapes[name], generator=generator)

    unconditional = {name: value(name) for name in conditioning.texts}
    return ClipShapes({name: value(name) for name in shapes}, unconditional or None)
