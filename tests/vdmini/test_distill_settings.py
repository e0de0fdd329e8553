"""What the settings of a distillation do to its steps, and which losses end it."""

from __future__ import annotations

import copy
import dataclasses
import itertools
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from diffusers import UNetSpatioTemporalConditionModel
from tiny_clips import NoiseClips, encoded, same, svd_pipeline, svd_unet, weights
from torch import nn

from vdmini.distill import Distilled, DistillSettings, DivergedError, StepLosses, distill
from vdmini.distill.processes import Processes
from vdmini.distill.settings import WON_LOSS, WON_STEPS, check_health
from vdmini.distill.training import Training
from vdmini.latents import LatentCache
from vdmini.plan import PruningPlan
from vdmini.prune import apply_plan
from vdmini.rules import plan_removing
from vdmini.tasks import make_task

# diffusers' image processor meets numpy 2 that way.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword")
SETTINGS = DistillSettings(steps=1, batch_size=2, learning_rate=1e-3, head_learning_rate=1e-3)
EDM = make_task("edm", {})


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> LatentCache:
    """Six clips of two 8x8 latents."""
    return encoded(svd_pipeline(), NoiseClips(6, 2, 64, 64), tmp_path_factory.mktemp("clips"))


@pytest.fixture
def teacher() -> UNetSpatioTemporalConditionModel:
    """A two-stage UNet with random weights, the same in every test."""
    return svd_unet()


@pytest.fixture(scope="module")
def plan() -> PruningPlan:
    """What is left of the teacher without its middle."""
    return plan_removing(svd_unet(), {"Mid"}, "by hand")


def run(
    teacher: nn.Module,
    plan: PruningPlan,
    clips: LatentCache,
    checkpoint: Path,
    student: nn.Module | None = None,
    **changes: Any,
) -> Distilled:
    """Distil a fresh student, or the one given."""
    student = apply_plan(teacher, plan) if student is None else student
    return distill(teacher, student, plan, clips, EDM, dataclasses.replace(SETTINGS, **changes), checkpoint)


def health(count: int, **changes: float) -> list[StepLosses]:
    good = StepLosses(0, task=1.0, icd=0.5, mca=-0.1, output=0.2, discriminator=1.5, gradient_norm=3.0)
    return [dataclasses.replace(good, step=step, **changes) for step in range(1, count + 1)]


def test_a_discriminator_that_has_won_for_good_stops_the_run(tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoint.pt"
    won = health(WON_STEPS, discriminator=WON_LOSS / 2)
    with pytest.raises(DivergedError, match=rf"^step {WON_STEPS}: .*no checkpoint .*head_learning_rate.*lambda_r1"):
        check_health(won, checkpoint)
    checkpoint.touch()
    with pytest.raises(DivergedError, match=rf"last good checkpoint is {checkpoint}"):
        check_health([*health(7), *won], checkpoint)
    check_health(won[1:], checkpoint)
    for place in (0, WON_STEPS // 2, WON_STEPS - 1):
        fought = [*won]
        fought[place] = dataclasses.replace(won[place], discriminator=WON_LOSS)
        check_health(fought, checkpoint)
    # Switched off, it does not win.
    check_health(health(2 * WON_STEPS, discriminator=0.0), checkpoint)


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(StepLosses)[1:]])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_every_loss_must_be_finite(name: str, value: float, tmp_path: Path) -> None:
    check_health(health(3), tmp_path / "checkpoint.pt")
    with pytest.raises(DivergedError, match=rf"^step 3: {name} is (nan|-?inf); .*lower the learning rate"):
        check_health([*health(2), dataclasses.replace(health(3)[2], **{name: value})], tmp_path / "checkpoint.pt")


def test_the_learning_rate_warms_up_and_falls_to_a_tenth(
    teacher: UNetSpatioTemporalConditionModel, plan: PruningPlan, clips: LatentCache
) -> None:
    settings = dataclasses.replace(SETTINGS, steps=100, lambda_mca=0.0)
    student, rates = apply_plan(teacher, plan), []
    with Training(Processes(torch.device("cpu")), teacher, student, plan, clips, EDM, settings) as training:
        before = weights(student)
        for _ in range(100):
            # Without gradients no weight moves.
            training.update_weights(training.gradient_norm())
            rates.append(training.optimizer.param_groups[0]["lr"] / 1e-3)
    assert rates[:3] == pytest.approx([1 / 3, 2 / 3, 1], rel=1e-2)
    assert all(one > other for one, other in itertools.pairwise(rates[2:]))
    assert rates[50] == pytest.approx(0.55, rel=1e-2)
    assert rates[99] == pytest.approx(0.1, rel=1e-2)
    assert same(weights(student), before)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("constant", [1, 1, 1, 1]), ("constant_with_warmup", [0, 0.5, 1, 1]), ("linear", [0, 0.5, 1, 0.5])],
)
def test_the_schedules_of_diffusers_go_by_their_names(
    name: str,
    expected: list[float],
    teacher: UNetSpatioTemporalConditionModel,
    plan: PruningPlan,
    clips: LatentCache,
) -> None:
    settings = dataclasses.replace(SETTINGS, steps=4, lr_scheduler=name, lr_warmup_steps=2, lambda_mca=0.0)
    student = apply_plan(teacher, plan)
    with Training(Processes(torch.device("cpu")), teacher, student, plan, clips, EDM, settings) as training:
        assert [training.rate_factor(step) for step in range(4)] == expected
    settings = dataclasses.replace(settings, lr_scheduler="sine")
    with pytest.raises(ValueError, match="sine"):
        Training(Processes(torch.device("cpu")), teacher, apply_plan(teacher, plan), plan, clips, EDM, settings)


def test_weight_decay_pulls_at_the_weights_alone(
    teacher: UNetSpatioTemporalConditionModel, plan: PruningPlan, clips: LatentCache, tmp_path: Path
) -> None:
    start, moved = apply_plan(teacher, plan), {}
    for decay in (0.0, 0.5):
        student = copy.deepcopy(start)
        run(teacher, plan, clips, tmp_path / "checkpoint.pt", student=student, steps=1, weight_decay=decay)
        moved[decay] = weights(student)
    for name, weight in weights(start).items():
        torch.testing.assert_close(moved[0.0][name] - moved[0.5][name], 1e-3 * 0.5 * weight, rtol=1e-3, atol=2e-7)


def test_eight_bit_adam_is_bitsandbytes_own(
    teacher: UNetSpatioTemporalConditionModel,
    plan: PruningPlan,
    clips: LatentCache,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(ImportError, match=r"'adamw8bit' needs bitsandbytes: pip install bitsandbytes"):
        run(teacher, plan, clips, tmp_path / "checkpoint.pt", optimizer="adamw8bit")
    library: Any = ModuleType("bitsandbytes")
    library.optim = ModuleType("bitsandbytes.optim")
    library.optim.AdamW8bit = torch.optim.AdamW
    monkeypatch.setitem(sys.modules, "bitsandbytes", library)
    lowered = run(teacher, plan, clips, tmp_path / "checkpoint.pt", steps=2, optimizer="adamw8bit")
    assert lowered.losses == run(teacher, plan, clips, tmp_path / "checkpoint.pt", steps=2).losses
