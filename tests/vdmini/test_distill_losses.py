"""Each loss of a distillation reaches the networks it is meant for, with the weight it is given."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNetSpatioTemporalConditionModel
from tiny_clips import NoiseClips, encoded, same, svd_pipeline, svd_unet, weights
from torch import Tensor, nn

from vdmini.conditioning.svd import CONDITIONING
from vdmini.distill import Distilled, DistillSettings, distill
from vdmini.distill.batch import Batch, draw_share
from vdmini.distill.processes import Processes
from vdmini.distill.training import Training
from vdmini.features import FeatureTap, feature_pairs
from vdmini.latents import LatentCache
from vdmini.plan import PruningPlan
from vdmini.prune import apply_plan
from vdmini.rules import plan_removing
from vdmini.tasks import make_task

# diffusers' image processor meets numpy 2 that way.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword")
SETTINGS = DistillSettings(steps=3, batch_size=2, learning_rate=1e-3, head_learning_rate=1e-3)
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


@pytest.fixture
def batch(clips: LatentCache) -> Batch:
    """The first step's batch."""
    return next(draw_share(clips, EDM, SETTINGS, 0, 0, 1))


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


@contextlib.contextmanager
def training(teacher: nn.Module, plan: PruningPlan, clips: LatentCache, **changes: Any) -> Iterator[Training]:
    """A fresh student about to be trained."""
    settings = dataclasses.replace(SETTINGS, **changes)
    student = apply_plan(teacher, plan)
    with Training(Processes(torch.device("cpu")), teacher, student, plan, clips, EDM, settings) as made:
        yield made


def gradients(module: nn.Module) -> dict[str, Tensor]:
    """The gradients a module has, by the names of its weights."""
    return {name: weight.grad for name, weight in module.named_parameters() if weight.grad is not None}


def test_the_first_losses_are_those_of_the_batch_that_the_seed_draws(
    teacher: UNetSpatioTemporalConditionModel, plan: PruningPlan, clips: LatentCache, batch: Batch, tmp_path: Path
) -> None:
    losses = run(teacher, plan, clips, tmp_path / "checkpoint.pt", steps=1, lambda_output=1.0).losses[0]
    student, sigma = apply_plan(teacher, plan), batch.sample.levels.view(2, 1, 1, 1, 1)
    noisy = batch.sample.clean + sigma * batch.sample.noise
    scaled = noisy / (sigma**2 + 1).sqrt()
    inputs = CONDITIONING.denoiser_inputs(teacher, scaled, batch.sample.levels.log() / 4, batch.conditions)
    student_stages, teacher_stages = zip(*feature_pairs(plan), strict=True)
    with torch.no_grad(), FeatureTap(student, student_stages) as ours, FeatureTap(teacher, teacher_stages) as theirs:
        prediction, target = student(**inputs).sample, teacher(**inputs).sample
    velocity = (batch.sample.noise - sigma * batch.sample.clean) / (sigma**2 + 1).sqrt()
    # Attention rounds differently with and without gradients.
    assert losses.task == pytest.approx(float((prediction - velocity).square().mean()), rel=1e-5)
    assert losses.output == pytest.approx(float((prediction - target).square().mean()), rel=1e-5)
    differences = [(one - other).square().mean() for one, other in zip(ours.features, theirs.features, strict=True)]
    assert losses.icd == pytest.approx(float(sum(differences)), rel=1e-5)


def test_micro_batches_are_the_whole_batch(
    teacher: UNetSpatioTemporalConditionModel, plan: PruningPlan, clips: LatentCache, tmp_path: Path
) -> None:
    changes = {
        "batch_size": 4,
        "learning_rate": 1e-5,
        "head_learning_rate": 1e-4,
        "lambda_r1": 0.1,
        "lambda_output": 0.5,
    }
    whole = run(teacher, plan, clips, tmp_path / "whole.pt", **changes).losses
    for size in (1, 2):
        micro = run(teacher, plan, clips, tmp_path / f"{size}.pt", micro_batch_size=size, **changes).losses
        for one, other in zip(whole, micro, strict=True):
            # Scores of both signs nearly cancel, and each is of the order of 1.
            assert other.values() == pytest.approx(one.values(), rel=1e-5, abs=1e-5)
    assert whole[-1].values() != pytest.approx(whole[0].values(), rel=1e-2)


def test_the_adversary_is_off_without_its_weight(
    teacher: UNetSpatioTemporalConditionModel, plan: PruningPlan, clips: LatentCache, tmp_path: Path
) -> None:
    moved = {}
    for weight in (0.0, 1.0):
        checkpoint = tmp_path / f"{weight}.pt"
        result = run(teacher, plan, clips, checkpoint, lambda_mca=weight, steps=2, checkpoint_every=1)
        moved[weight] = bool(torch.load(checkpoint, weights_only=True)["head_optimizer"]["state"])
        assert all((each.mca, each.discriminator) != (0.0, 0.0) for each in result.losses) == (weight > 0)
    assert moved == {0.0: False, 1.0: True}


def test_losses_that_are_off_are_0_and_do_not_matter(
    teacher: UNetSpatioTemporalConditionModel, plan: PruningPlan, clips: LatentCache, tmp_path: Path
) -> None:
    off = {"lambda_icd": 0.0, "lambda_mca": 0.0, "lambda_output": 0.0}
    for each in run(teacher, plan, clips, tmp_path / "checkpoint.pt", steps=2, **off).losses:
        assert each.task > 0
        assert (each.icd, each.mca, each.output, each.discriminator) == (0.0, 0.0, 0.0, 0.0)


def test_the_student_does_not_hear_the_adversary_during_its_warm_up(
    teacher: UNetSpatioTemporalConditionModel, plan: PruningPlan, clips: LatentCache, tmp_path: Path
) -> None:
    def student(**changes: Any) -> dict[str, Tensor]:
        return weights(run(teacher, plan, clips, tmp_path / "checkpoint.pt", steps=2, **changes).student)

    without = student(lambda_mca=0.0)
    assert same(student(discriminator_warmup=2), without)
    assert same(student(discriminator_warmup=2, balance="adaptive"), without)
    assert not same(student(discriminator_warmup=1), without)


def test_output_distillation_draws_the_student_to_its_teacher(
    teacher: UNetSpatioTemporalConditionModel, plan: PruningPlan, clips: LatentCache, tmp_path: Path
) -> None:
    changes = {"steps": 8, "lambda_icd": 0.0, "lambda_mca": 0.0}
    # A weight too small to be seen leaves the loss measured.
    far = run(teacher, plan, clips, tmp_path / "far.pt", lambda_output=1e-12, **changes).losses
    near = run(teacher, plan, clips, tmp_path / "near.pt", lambda_output=100.0, **changes).losses
    assert near[0].output == far[0].output
    assert sum(each.output for each in near[-4:]) < 0.9 * sum(each.output for each in far[-4:])


@pytest.mark.parametrize("precision", ["no", "bf16"])
def test_student_and_heads_step_without_a_gradient_of_each_other(
    teacher: UNetSpatioTemporalConditionModel, plan: PruningPlan, clips: LatentCache, batch: Batch, precision: str
) -> None:
    with training(teacher, plan, clips, lambda_r1=1.0) as run:
        adversary = run.adversary
        clean = batch.sample.clean.clone().requires_grad_()
        lowered = torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16", cache_enabled=False)
        with lowered:
            made, real = adversary.features(clean, batch), adversary.features(batch.sample.noise, batch)
            loss = adversary.student_loss(made, batch)
        loss.backward(retain_graph=True)
        assert clean.grad is not None
        assert (clean.grad.flatten(2).abs().sum(2) > 0).all()
        assert not gradients(adversary.heads)
        clean.grad = None
        with lowered:
            hinge, penalty = adversary.heads_loss(made, real, batch)
        (hinge + penalty).backward()
        assert clean.grad is None
        assert gradients(adversary.heads).keys() == dict(adversary.heads.named_parameters()).keys()
        assert not gradients(teacher)
        assert not gradients(run.bare_student)


def test_a_step_gives_the_heads_the_gradient_of_their_own_loss_alone(
    teacher: UNetSpatioTemporalConditionModel, plan: PruningPlan, clips: LatentCache, batch: Batch
) -> None:
    found = []
    for weight, output in ((1.0, 0.0), (50.0, 3.0)):
        with training(teacher, plan, clips, lambda_mca=weight, lambda_output=output) as run:
            run.backward(batch, 1.0)
            found.append((gradients(run.adversary.heads), gradients(run.bare_student)))
    (heads, student), (same_heads, other_student) = found
    assert same(heads, same_heads)
    assert not same(student, other_student)


def test_the_student_is_scored_by_the_heads_as_they_were_before_their_step(
    teacher: UNetSpatioTemporalConditionModel, plan: PruningPlan, clips: LatentCache, tmp_path: Path
) -> None:
    still, moved = (
        run(teacher, plan, clips, tmp_path / "checkpoint.pt", steps=2, learning_rate=0.0, head_learning_rate=rate)
        for rate in (0.0, 0.1)
    )
    assert still.losses[0] == moved.losses[0]
    assert abs(still.losses[1].mca - moved.losses[1].mca) > 0.1
    assert still.losses[1].task == moved.losses[1].task


def test_the_r1_penalty_is_for_the_heads_alone(
    teacher: UNetSpatioTemporalConditionModel, plan: PruningPlan, clips: LatentCache, tmp_path: Path
) -> None:
    heads, students, losses = {}, {}, {}
    for weight in (0.0, 10.0):
        checkpoint, student = tmp_path / f"{weight}.pt", apply_plan(teacher, plan)
        result = run(teacher, plan, clips, checkpoint, student, steps=2, checkpoint_every=1, lambda_r1=weight)
        state = torch.load(checkpoint, weights_only=True)
        heads[weight], students[weight], losses[weight] = state["heads"], state["student"], result.losses
    assert same(students[0.0], students[10.0])
    assert not same(heads[0.0], heads[10.0])
    # The penalty itself is not reported, and what it does to the heads is heard from the next step on.
    assert losses[0.0][0] == losses[10.0][0]
    assert losses[0.0][1].mca != losses[10.0][1].mca


def test_real_clips_are_the_teachers_or_the_datas(
    teacher: UNetSpatioTemporalConditionModel, plan: PruningPlan, clips: LatentCache, batch: Batch, tmp_path: Path
) -> None:
    seen, losses = {}, {}
    for real in ("teacher", "data"):
        with training(teacher, plan, clips, real=real) as trained:
            given: list[Tensor] = []
            features = trained.adversary.features

            def note(clean: Tensor, batch: Batch, given: list[Tensor] = given, features: Any = features) -> Any:
                given.append(clean.detach())
                return features(clean, batch)

            trained.adversary.features = note  # type: ignore[method-assign]
            trained.backward(batch, 1.0)
        seen[real] = given
        losses[real] = run(teacher, plan, clips, tmp_path / "checkpoint.pt", steps=1, real=real).losses[0]
    assert torch.equal(seen["teacher"][0], seen["data"][0]), "the student's own clip comes first"
    assert torch.equal(seen["data"][1], batch.sample.clean)
    sigma = batch.sample.levels.view(2, 1, 1, 1, 1)
    noisy = batch.sample.clean + sigma * batch.sample.noise
    inputs = CONDITIONING.denoiser_inputs(
        teacher, noisy / (sigma**2 + 1).sqrt(), batch.sample.levels.log() / 4, batch.conditions
    )
    with torch.no_grad():
        prediction = teacher(**inputs).sample
    denoised = noisy / (sigma**2 + 1) - prediction * sigma / (sigma**2 + 1).sqrt()
    torch.testing.assert_close(seen["teacher"][1], denoised)
    assert losses["teacher"].mca == losses["data"].mca
    assert losses["teacher"].discriminator != losses["data"].discriminator


def test_an_adaptive_balance_makes_both_losses_pull_alike(
    teacher: UNetSpatioTemporalConditionModel,
    plan: PruningPlan,
    clips: LatentCache,
    batch: Batch,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("vdmini.distill.training.draw_share", lambda *_: iter([batch]))
    sigma = batch.sample.levels.view(2, 1, 1, 1, 1)
    velocity = (batch.sample.noise - sigma * batch.sample.clean) / (sigma**2 + 1).sqrt()
    still = {"learning_rate": 0.0, "head_learning_rate": 0.0, "lambda_icd": 0.0, "steps": 100}

    def adversarys_pull(run: Training) -> tuple[Tensor, float]:
        """The gradient of all but the task at the student's output in a step, and how hard the task pulls there."""
        predictions, found = [], list[Tensor]()

        def listen(module: nn.Module, inputs: object, output: Any) -> None:
            predictions.append(output.sample)
            output.sample.register_hook(found.append)

        handle = run.bare_student.register_forward_hook(listen)
        run.train_step()
        handle.remove()
        # The mean squared error's own gradient.
        task = 2 * (predictions[-1].detach() - velocity) / velocity.numel()
        return found[-1] - task, float(task.norm())

    with training(teacher, plan, clips, **still) as fixed:
        adversary, task = adversarys_pull(fixed)
        assert fixed.balance == 1.0
    ratio = task / float(adversary.norm())
    assert not 0.5 < ratio < 2
    with training(teacher, plan, clips, balance="adaptive", **still) as run:
        for step in range(1, 4):
            run.train_step()
            assert run.balance == pytest.approx(0.9**step + (1 - 0.9**step) * ratio, rel=1e-3)
        run.balance = ratio
        balanced, task = adversarys_pull(run)
        assert float(balanced.norm()) == pytest.approx(task, rel=1e-3)
        torch.testing.assert_close(balanced / balanced.norm(), adversary / adversary.norm(), rtol=1e-3, atol=1e-4)
