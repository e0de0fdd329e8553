"""The teacher and the students that are timed against each other."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from vdmini.errors import ModelLoadError, PlanError
from vdmini.models.loading import load_model
from vdmini.models.registry import VideoModel
from vdmini.prune import apply_plan, prune_pipeline
from vdmini.vae import prune_decoder
from vdmini_bench.config.timing import ATTENTION, TEACHER, SpeedRequest
from vdmini_bench.errors import BenchError, SuiteError
from vdmini_bench.models.inspect import read_or_make_plan
from vdmini_bench.models.random_models import build_random


@dataclass(frozen=True)
class TimedModel:
    """A model to time; with `steps` it samples in its own steps and with its own guidance, else as the request says.

    `counted` is the model without weights, where operations cannot be counted on it as it runs. With `passes_vary` a
    pass of the denoiser by itself means nothing, since measures leave out parts of some passes.
    """

    model: VideoModel
    steps: int | None = None
    guidance: float | None = None
    counted: VideoModel | None = None
    passes_vary: bool = False

    @property
    def plain(self) -> VideoModel:
        """The model that operations are counted on."""
        return self.counted or self.model


def load_models(request: SpeedRequest, device: torch.device) -> dict[str, VideoModel]:
    """The teacher and a student for each plan, by name, on a device.

    Raises:
        SuiteError: the teacher cannot be loaded, or a plan or a decoder does not fit it.
    """
    dtype = getattr(torch, request.dtype)
    try:
        if request.random_weights:
            whole = "end_to_end" in request.scopes
            teacher = build_random(
                request.model, device=device, dtype=dtype, width=request.channels, with_pipeline=whole
            )
        elif request.channels is not None:
            raise SuiteError(f"{request.model}: only models with random weights come in other widths")
        else:
            teacher = load_model(request.model, device=device, dtype=dtype)
        models = {TEACHER: teacher}
        for rule_or_file in request.plans:
            models[student_name(rule_or_file)] = _student(teacher, rule_or_file, request.decoder)
    except (ModelLoadError, PlanError, ValueError, TypeError) as error:
        raise SuiteError(str(error)) from error
    if len(models) != 1 + len(request.plans):
        raise SuiteError(f"two of the plans {', '.join(request.plans)} have one name: rename a file")
    for model in models.values():
        for part in (model.denoiser, model.vae):
            if part is not None:
                part.requires_grad_(False).eval()
    return models


def student_name(rule_or_file: str) -> str:
    """What rows call a plan's student: the rule, or the name of the file."""
    return Path(rule_or_file).stem if rule_or_file.endswith(".json") else rule_or_file


def _student(teacher: VideoModel, rule_or_file: str, decoder: Sequence[int] | None) -> VideoModel:
    plan = read_or_make_plan(rule_or_file, teacher)
    # Not a deep copy: all but what is replaced is the teacher's, and in memory once.
    pipeline: Any = copy.copy(teacher.pipeline)
    denoiser = apply_plan(teacher.denoiser, plan) if pipeline is None else prune_pipeline(pipeline, plan)
    vae: Any = teacher.vae
    if decoder is not None:
        vae = prune_decoder(vae, widths=decoder)
    if pipeline is not None and vae is not None:
        pipeline.vae = vae
    return VideoModel(rule_or_file, teacher.family, denoiser, vae, pipeline)


@contextmanager
def attention_backend(name: str) -> Iterator[None]:
    """Have torch's attention use one backend alone, or its own choice for "auto".

    Raises:
        BenchError: the backend cannot run what was asked of it here.
    """
    from torch.nn.attention import SDPBackend, sdpa_kernel

    if name == "auto":
        yield
        return
    try:
        with sdpa_kernel(getattr(SDPBackend, ATTENTION[name])):
            yield
    except RuntimeError as error:
        if "No available kernel" not in str(error):
            raise
        raise BenchError(
            f"--attention {name}: this device has no such kernel for this model's attention (masks, heads or dtype):"
            " take another, or auto"
        ) from error
