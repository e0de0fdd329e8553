"""What a step of distillation computes before its gradients, for every family, on a card."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from pretended import Card, moved, on_card, pipeline_on_card
from tiny_animated import ANIMATED
from tiny_clips import TEXT_MODELS, NoiseClips, encoded, svd_pipeline, svd_unet
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode, unset_fake_temporarily

from vdmini.conditioning import conditioning_of
from vdmini.conditioning.base import EncodeSettings
from vdmini.distill import DistillSettings
from vdmini.distill.batch import draw_share
from vdmini.distill.processes import Processes
from vdmini.distill.training import Training
from vdmini.models.registry import family_of, pipeline_denoiser
from vdmini.prune import apply_plan
from vdmini.rules import make_plan
from vdmini.tasks import make_task

SIZES = {"ltx-i2v": NoiseClips(2, 9, 64, 64), "cogvideox-i2v": NoiseClips(2, 9, 16, 32)}
SVD = (lambda: svd_pipeline(svd_unet(stages=3)), NoiseClips(2, 2, 32, 32))
MODELS = {
    "svd": SVD,
    "sfv": SVD,
    **TEXT_MODELS,
    **{name: (build, SIZES.get(name, NoiseClips(2, 5, 16, 32))) for name, build in ANIMATED.items()},
}
# Its own network looks at the mask of a text in each block.
WAITS = {"mochi": 24}


@dataclass(frozen=True)
class OneBatch:
    """The first batch of a cache, as all there is."""

    values: dict[str, Tensor]
    shapes: Mapping[str, tuple[int, ...]]
    unconditional: Mapping[str, Tensor] | None

    def __len__(self) -> int:
        return 2

    def batch(self, indices: Tensor) -> dict[str, Tensor]:
        return dict(self.values)


@pytest.fixture
def without_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fakes have no gradients on a card that is not there: take all for zero."""

    def zeros(outputs: Any, inputs: Any, **options: Any) -> tuple[Tensor, ...]:
        return tuple(torch.zeros_like(each) for each in ([inputs] if isinstance(inputs, Tensor) else inputs))

    monkeypatch.setattr(Tensor, "backward", lambda self: None)
    monkeypatch.setattr(torch.autograd, "grad", zeros)


@pytest.mark.usefixtures("without_gradients")
@pytest.mark.parametrize("mixed_precision", ["no", "bf16"])
@pytest.mark.parametrize("name", [*MODELS])
def test_a_step_of_distillation_runs_on_the_card(
    name: str, mixed_precision: str, fakes: FakeTensorMode, tmp_path: Path
) -> None:
    build, source = MODELS[name]
    settings = DistillSettings(steps=1, batch_size=2, lambda_output=0.1, lambda_r1=0.1, mixed_precision=mixed_precision)
    with unset_fake_temporarily():
        pipeline = build()
        cache = encoded(pipeline, source, tmp_path)
        clips = OneBatch(cache.batch(torch.arange(2)), cache.shapes, cache.unconditional)
        teacher = pipeline_denoiser(pipeline)
        task = make_task("sfv", {}) if name == "sfv" else family_of(teacher).default_task(teacher)
        plan = make_plan(teacher, "uniform:flops=0.6" if hasattr(pipeline, "unet") else "every-nth:n=2")
        student = apply_plan(teacher, plan)
        (batch,) = draw_share(clips, task, settings, 0, 0, 1)
    processes = Processes(torch.device("cuda"))
    training = Training(processes, on_card(teacher), on_card(student), plan, clips, task, settings)
    with training, Card() as card:
        losses = training.backward(moved(batch), 1.0)
    assert (losses.device.type, losses.shape) == ("cuda", (7,))
    assert card.waits <= WAITS.get(name, 0)


@pytest.mark.parametrize("name", [*MODELS])
def test_clips_are_encoded_on_the_card(name: str, fakes: FakeTensorMode) -> None:
    build, source = MODELS[name]
    with unset_fake_temporarily():
        pipeline, clip = build(), source.clip(0)
    conditioning = conditioning_of(pipeline_denoiser(pipeline))
    settings = EncodeSettings(frames_per_second=7, noise_strength=0.02)
    with Card():
        found = conditioning.encode_clip(pipeline_on_card(pipeline), clip, settings)
    assert {value.device.type for value in found.values()} == {"cpu"}
