"""Distillation trains the student alone, and a killed run continues as if nothing had happened."""

from __future__ import annotations

import dataclasses
import json
import math
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import forked
import pytest
import torch
from diffusers import UNetSpatioTemporalConditionModel
from tiny_clips import NoiseClips, encoded, same, svd_pipeline, svd_unet, weights
from torch import Tensor, nn

from vdmini.distill import Distilled, DistillSettings, DivergedError, StepLosses, distill
from vdmini.distill.batch import TrainingClips
from vdmini.latents import LatentCache
from vdmini.plan import PruningPlan
from vdmini.prune import apply_plan
from vdmini.rules import make_plan, plan_removing
from vdmini.tasks import make_task

# diffusers' image processor meets numpy 2 that way.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword")
SETTINGS = DistillSettings(steps=3, batch_size=2, learning_rate=1e-3, head_learning_rate=1e-3)
EDM = make_task("edm", {})
KILLED_AFTER = 3

# Trains from the folder it is given; with a last argument it reports that step and then waits to be killed.
CHILD = """
import json, sys, time
from pathlib import Path
import torch
from diffusers import UNetSpatioTemporalConditionModel
from vdmini.distill import DistillSettings, distill
from vdmini.latents import LatentCache
from vdmini.plan import PruningPlan
from vdmini.prune import apply_plan
from vdmini.tasks import make_task

folder, stop = Path(sys.argv[1]), int(sys.argv[2])
torch.set_num_threads(int(sys.argv[3]))

def report(losses):
    print(losses.step, flush=True)
    if losses.step == stop:
        time.sleep(600)

teacher = UNetSpatioTemporalConditionModel.from_pretrained(folder / "teacher")
plan = PruningPlan.from_json((folder / "plan.json").read_text())
settings = DistillSettings(**json.loads((folder / "settings.json").read_text()))
clips = LatentCache.open(Path(sys.argv[4]))
student = apply_plan(teacher, plan)
result = distill(teacher, student, plan, clips, make_task("edm", {}), settings, folder / "checkpoint.pt", report)
torch.save(result.student.state_dict(), folder / "student.pt")
torch.save([[each.step, *each.values()] for each in result.losses], folder / "losses.pt")
"""


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


@dataclasses.dataclass
class SpoilableClips:
    """Clips whose latents are numbers until they are spoilt."""

    cache: LatentCache
    spoilt: bool = False
    unconditional: Mapping[str, Tensor] | None = None

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        return self.cache.shapes

    def __len__(self) -> int:
        return len(self.cache)

    def batch(self, indices: Tensor) -> dict[str, Tensor]:
        batch = self.cache.batch(indices)
        if self.spoilt:
            batch["latents"].fill_(float("nan"))
        return batch


def run(
    teacher: UNetSpatioTemporalConditionModel,
    plan: PruningPlan,
    clips: TrainingClips,
    checkpoint: Path,
    on_step: Callable[[StepLosses], None] = lambda losses: None,
    student: nn.Module | None = None,
    **changes: Any,
) -> Distilled:
    """Distil a fresh student, or the one given."""
    student = apply_plan(teacher, plan) if student is None else student
    return distill(teacher, student, plan, clips, EDM, dataclasses.replace(SETTINGS, **changes), checkpoint, on_step)


def test_the_task_loss_falls(
    teacher: UNetSpatioTemporalConditionModel, plan: PruningPlan, clips: LatentCache, tmp_path: Path
) -> None:
    # Noise levels differ more than the steps do, so each batch is held against itself before any training.
    trained, untrained = (
        run(teacher, plan, clips, tmp_path / f"{rate}.pt", steps=10, learning_rate=rate,
            lambda_icd=0.0, lambda_mca=0.0).losses
        for rate in (1e-3, 0.0)
    )  # fmt: skip
    assert [each.step for each in trained] == [*range(1, 11)]
    assert trained[0] == untrained[0]
    assert sum(each.task for each in trained[-5:]) < 0.9 * sum(each.task for each in untrained[-5:])


def test_a_killed_run_continues_as_if_unbroken(
    teacher: UNetSpatioTemporalConditionModel, plan: PruningPlan, clips: LatentCache, tmp_path: Path
) -> None:
    settings = dataclasses.replace(SETTINGS, steps=6, checkpoint_every=KILLED_AFTER - 1, balance="adaptive")
    teacher.save_pretrained(tmp_path / "teacher")
    (tmp_path / "plan.json").write_text(plan.to_json())
    (tmp_path / "settings.json").write_text(json.dumps(dataclasses.asdict(settings)))

    def command(stop: int) -> tuple[object, ...]:
        return ("-c", CHILD, tmp_path, stop, torch.get_num_threads(), clips.folder)

    with forked.started(*command(KILLED_AFTER)) as child:
        assert [child.stdout.readline().strip() for _ in range(KILLED_AFTER)] == ["1", "2", "3"]
        child.process.kill()
        assert child.finish().returncode == -9
    assert not (tmp_path / "student.pt").exists()
    resumed = forked.run(*command(0))
    assert resumed.returncode == 0, resumed.stderr
    assert resumed.stdout.split() == ["3", "4", "5", "6"]

    # Loaded like the child's: weights that lie elsewhere in memory may round differently.
    teacher = UNetSpatioTemporalConditionModel.from_pretrained(tmp_path / "teacher")
    unbroken = run(teacher, plan, clips, tmp_path / "other.pt", **dataclasses.asdict(settings))
    assert same(weights(unbroken.student), torch.load(tmp_path / "student.pt", weights_only=True))
    losses = [[each.step, *each.values()] for each in unbroken.losses]
    assert torch.load(tmp_path / "losses.pt", weights_only=True) == losses


def test_gradient_checkpointing_gives_the_same_student(
    teacher: UNetSpatioTemporalConditionModel, plan: PruningPlan, clips: LatentCache, tmp_path: Path
) -> None:
    one, other = (
        run(teacher, plan, clips, tmp_path / "checkpoint.pt", gradient_checkpointing=checkpointing)
        for checkpointing in (False, True)
    )
    assert one.losses == other.losses
    assert same(weights(one.student), weights(other.student))


def test_the_seed_decides_the_student(
    teacher: UNetSpatioTemporalConditionModel, plan: PruningPlan, clips: LatentCache, tmp_path: Path
) -> None:
    results = []
    for seed in (1, 1, 2):
        torch.manual_seed(len(results))
        results.append(run(teacher, plan, clips, tmp_path / "checkpoint.pt", steps=2, seed=seed))
    first, again, other = results
    assert first.losses == again.losses
    assert same(weights(first.student), weights(again.student))
    assert first.losses != other.losses


def test_an_unpruned_student_starts_with_its_teachers_content(
    teacher: UNetSpatioTemporalConditionModel, clips: LatentCache, tmp_path: Path
) -> None:
    result = run(teacher, make_plan(teacher, "none"), clips, tmp_path / "checkpoint.pt", steps=2, lambda_output=1.0)
    # Attention rounds differently with and without gradients.
    assert result.losses[0].icd < 1e-10
    assert result.losses[0].output < 1e-10
    assert result.losses[1].icd > 1e-6
    assert result.losses[1].output > 1e-6


def test_the_teacher_does_not_change(
    teacher: UNetSpatioTemporalConditionModel, plan: PruningPlan, clips: LatentCache, tmp_path: Path
) -> None:
    before = weights(teacher)
    every_loss = {"lambda_output": 1.0, "lambda_r1": 1.0, "balance": "adaptive"}
    run(teacher, plan, clips, tmp_path / "checkpoint.pt", **every_loss)
    assert same(weights(teacher), before)
    assert all(parameter.grad is None for parameter in teacher.parameters())


def interrupt(losses: StepLosses) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("ends", "changes", "error"),
    [
        ("returns", {}, None),
        ("is interrupted", {}, KeyboardInterrupt),
        ("diverges", {}, DivergedError),
        ("has no such batch", {"micro_batch_size": 3}, ValueError),
        ("has no such optimizer", {"optimizer": "adamw8bit"}, ImportError),
    ],
)
def test_no_hook_is_left_on_either_network(
    teacher: UNetSpatioTemporalConditionModel,
    plan: PruningPlan,
    clips: LatentCache,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    ends: str,
    changes: Mapping[str, Any],
    error: type[BaseException] | None,
) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    student = apply_plan(teacher, plan)
    on_step = interrupt if error is KeyboardInterrupt else lambda losses: None
    given = SpoilableClips(clips, spoilt=error is DivergedError)

    def train() -> None:
        run(teacher, plan, given, tmp_path / "checkpoint.pt", on_step, student, steps=1, **changes)

    if error is None:
        train()
    else:
        with pytest.raises(error):
            train()
    for module in (*student.modules(), *teacher.modules()):
        assert not module._forward_hooks
        assert not module._forward_pre_hooks


def test_a_loss_that_is_not_finite_stops_the_run(
    teacher: UNetSpatioTemporalConditionModel, plan: PruningPlan, clips: LatentCache, tmp_path: Path
) -> None:
    checkpoint, given = tmp_path / "checkpoint.pt", SpoilableClips(clips)

    def spoil(losses: StepLosses) -> None:
        given.spoilt = losses.step == 2

    with pytest.raises(DivergedError, match=rf"^step 3: .*last good checkpoint is {checkpoint}"):
        run(teacher, plan, given, checkpoint, spoil, steps=4, checkpoint_every=1)
    state = torch.load(checkpoint, weights_only=True)
    assert state["step"] == 2
    for part in ("student", "average", "heads"):
        assert all(tensor.isfinite().all() for tensor in state[part].values())
    # With clips in order again, the run goes on from there as if it had never been.
    given.spoilt = False
    resumed = run(teacher, plan, given, checkpoint, steps=4)
    unbroken = run(teacher, plan, clips, tmp_path / "other.pt", steps=4)
    assert resumed.losses == unbroken.losses
    assert same(weights(resumed.student), weights(unbroken.student))
    given.spoilt = True
    with pytest.raises(DivergedError, match=r"^step 1: .*no checkpoint was written yet"):
        run(teacher, plan, given, tmp_path / "absent.pt")


def test_a_gradient_that_is_not_finite_is_named_and_moves_no_checkpoint(
    teacher: UNetSpatioTemporalConditionModel, plan: PruningPlan, clips: LatentCache, tmp_path: Path
) -> None:
    student = apply_plan(teacher, plan)
    steps: list[int] = []
    student.get_parameter("conv_in.weight").register_hook(lambda grad: grad * (math.nan if len(steps) == 2 else 1))
    with pytest.raises(DivergedError, match=r"^step 3: gradient_norm is nan, the gradients of conv_in.weight are not"):
        run(
            teacher, plan, clips, tmp_path / "checkpoint.pt", lambda losses: steps.append(losses.step), student,
            steps=4, checkpoint_every=1,
        )  # fmt: skip
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["step"] == 2


def test_a_checkpoint_of_another_configuration_is_refused(
    teacher: UNetSpatioTemporalConditionModel, plan: PruningPlan, clips: LatentCache, tmp_path: Path
) -> None:
    checkpoint = tmp_path / "checkpoint.pt"
    run(teacher, plan, clips, checkpoint, steps=3, checkpoint_every=2)
    # What changes no result may change.
    assert run(teacher, plan, clips, checkpoint, steps=3, checkpoint_every=1, micro_batch_size=1).losses[-1].step == 3
    with pytest.raises(ValueError, match="of a distillation with another lambda_icd, seed: remove it"):
        run(teacher, plan, clips, checkpoint, steps=3, checkpoint_every=2, lambda_icd=0.2, seed=5)
    with pytest.raises(ValueError, match="of a distillation with another plan"):
        run(teacher, make_plan(teacher, "none"), clips, checkpoint, steps=3, checkpoint_every=2)


def test_the_result_is_the_students_moving_average(
    teacher: UNetSpatioTemporalConditionModel, plan: PruningPlan, clips: LatentCache, tmp_path: Path
) -> None:
    student = apply_plan(teacher, plan)
    expected, sofar = weights(student), {}
    previews: dict[int, dict[str, Tensor]] = {}

    def average(losses: StepLosses) -> None:
        for name, tensor in weights(student).items():
            expected[name] = 0.1 * expected[name] + 0.9 * tensor
        sofar[losses.step] = dict(expected)

    def preview(step: int, network: nn.Module) -> None:
        assert not network.training
        previews[step] = weights(network)
        for weight in network.parameters():
            weight.fill_(7.0)

    settings = dataclasses.replace(SETTINGS, steps=5, ema_decay=0.1)
    result = distill(teacher, student, plan, clips, EDM, settings, tmp_path / "checkpoint.pt", average, preview, 2)
    torch.testing.assert_close(weights(result.student), expected, rtol=1e-6, atol=1e-7)
    assert not same(weights(result.student), weights(student))
    # What a preview does to its network does not reach the average.
    assert [*previews] == [2, 4]
    torch.testing.assert_close(previews[2], sofar[2], rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(previews[4], sofar[4], rtol=1e-6, atol=1e-7)
    assert not result.student.training
    assert not any(weight.requires_grad for weight in result.student.parameters())
    assert type(result.student) is type(student)
    assert dict(result.student.config) == dict(student.config)
