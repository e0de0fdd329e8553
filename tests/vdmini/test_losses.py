"""The ICMD loss against its closed form."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from vdmini.losses import (
    adaptive_weight,
    icd_loss,
    mca_discriminator_loss,
    mca_generator_loss,
    output_distillation_loss,
    r1_penalty,
)

SHAPES = [(6, 8, 4, 4), (6, 16, 2, 2)]


def stages(seed: int) -> list[Tensor]:
    """Features of two stages: six frames each."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator) for shape in SHAPES]


def test_features_have_no_distance_from_themselves() -> None:
    assert icd_loss(stages(0), stages(0)).item() == 0.0
    assert icd_loss(stages(0), stages(1)).item() > 0.0


def test_content_loss_is_the_sum_of_the_stages_mean_squares() -> None:
    student, teacher = stages(0), stages(1)
    expected = sum(float(((one - other) ** 2).mean()) for one, other in zip(student, teacher, strict=True))
    assert icd_loss(student, teacher).item() == pytest.approx(expected, rel=1e-6)


def test_each_frame_adds_its_own_share() -> None:
    student, teacher = stages(0), stages(1)
    frames = [
        icd_loss([stage[frame : frame + 1] for stage in student], [stage[frame : frame + 1] for stage in teacher])
        for frame in range(6)
    ]
    torch.testing.assert_close(icd_loss(student, teacher), torch.stack(frames).mean())
    # A frame is compared with its own counterpart, not with another frame.
    assert icd_loss(student, [stage.roll(1, 0) for stage in student]).item() > 0.1


def test_the_gradient_reaches_the_student_only() -> None:
    student = [stage.requires_grad_() for stage in stages(0)]
    teacher = [stage.requires_grad_() for stage in stages(1)]
    icd_loss(student, teacher).backward()
    for one, other in zip(student, teacher, strict=True):
        assert one.grad is not None
        torch.testing.assert_close(one.grad, 2 * (one - other).detach() / one.numel())
        assert other.grad is None


def test_half_precision_features_are_compared_in_single_precision() -> None:
    large, larger = torch.full((1, 1, 1, 1), 300.0).half(), torch.full((1, 1, 1, 1), 900.0).half()
    assert icd_loss([large], [larger]).item() == 360_000.0


def test_features_that_do_not_pair_are_refused() -> None:
    student, teacher = stages(0), stages(1)
    with pytest.raises(ValueError, match=r"stage 1: student \(6, 16, 2, 2\) against teacher \(6, 16, 2, 1\)"):
        icd_loss(student, [teacher[0], teacher[1][..., :1]])
    with pytest.raises(ValueError, match="got 2 student and 1 teacher"):
        icd_loss(student, teacher[:1])
    with pytest.raises(ValueError, match="got 0 student and 0 teacher"):
        icd_loss([], [])


@pytest.mark.parametrize(
    ("student", "teacher", "loss"),
    [
        ([[0.0, 0.0]], [[0.0, 0.0]], 2.0),
        ([[-1.0, -5.0]], [[1.0, 5.0]], 0.0),
        ([[-1.0, 1.0]], [[1.0, 5.0]], 1.0),
        ([[-2.0, -1.0]], [[1.0, -1.0]], 1.0),
        ([[0.5, -3.0]], [[0.25, 3.0]], 0.75 + 0.375),
    ],
)
def test_the_discriminators_hinge(student: list[list[float]], teacher: list[list[float]], loss: float) -> None:
    assert mca_discriminator_loss(torch.tensor(student), torch.tensor(teacher)).item() == loss


def test_the_discriminators_hinge_pushes_only_inside_the_margin() -> None:
    student = torch.tensor([0.0, -2.0], requires_grad=True)
    teacher = torch.tensor([0.0, 2.0], requires_grad=True)
    mca_discriminator_loss(student, teacher).backward()
    assert student.grad is not None
    assert teacher.grad is not None
    assert student.grad.tolist() == [0.5, 0.0]
    assert teacher.grad.tolist() == [-0.5, 0.0]


def test_the_student_raises_its_score_everywhere() -> None:
    scores = torch.tensor([[3.0, -1.0], [0.0, 2.0]], requires_grad=True)
    loss = mca_generator_loss(scores)
    loss.backward()
    assert loss.item() == -1.0
    assert scores.grad is not None
    assert torch.equal(scores.grad, torch.full((2, 2), -0.25))


def test_r1_of_a_linear_discriminator_is_its_weights_squared() -> None:
    generator = torch.Generator().manual_seed(0)
    clips = torch.randn(3, 2, 4, 5, 6, generator=generator, requires_grad=True)
    weight = torch.randn(2, 4, 5, 6, generator=generator, requires_grad=True)
    penalty = r1_penalty((clips * weight).sum((1, 2, 3, 4)), [clips])
    torch.testing.assert_close(penalty, weight.detach().square().sum())
    (gradient,) = torch.autograd.grad(penalty, weight)
    torch.testing.assert_close(gradient, 2 * weight.detach())


def test_r1_averages_a_clips_scores_and_the_clips() -> None:
    generator = torch.Generator().manual_seed(0)
    clips = torch.randn(4, 7, generator=generator, requires_grad=True)
    # Two heads: the gradients of the mean score are (2 x + 3) / 2 and differ from clip to clip.
    scores = torch.stack([clips.square().sum(1), 3 * clips.sum(1)], dim=1)
    expected = ((2 * clips.detach() + 3) / 2).square().sum(1).mean()
    torch.testing.assert_close(r1_penalty(scores, clips), expected)


def test_r1_adds_up_feature_maps_whose_first_dimension_is_frames() -> None:
    generator = torch.Generator().manual_seed(0)
    maps = [torch.randn(shape, generator=generator, requires_grad=True) for shape in SHAPES]
    scores = sum(stage.unflatten(0, (2, 3)).square().flatten(1).sum(1) for stage in maps)
    assert isinstance(scores, Tensor)
    expected = sum(4 * stage.detach().square().sum() for stage in maps) / 2
    torch.testing.assert_close(r1_penalty(scores, maps), expected)


def test_r1_of_inputs_without_gradients_is_refused() -> None:
    clips = torch.randn(2, 3)
    with pytest.raises(ValueError, match=r"call requires_grad_\(\) before scoring"):
        r1_penalty(clips.sum(1), [clips])


def test_output_distillation_is_the_mean_square_and_moves_the_student_only() -> None:
    student = torch.randn(2, 3, 4, 2, 2, generator=torch.Generator().manual_seed(0)).requires_grad_()
    teacher = torch.randn(2, 3, 4, 2, 2, generator=torch.Generator().manual_seed(1)).requires_grad_()
    loss = output_distillation_loss(student, teacher)
    torch.testing.assert_close(loss, ((student - teacher) ** 2).mean())
    loss.backward()
    assert student.grad is not None
    torch.testing.assert_close(student.grad, 2 * (student - teacher).detach() / student.numel())
    assert teacher.grad is None
    assert output_distillation_loss(teacher, teacher).item() == 0


def test_output_distillation_compares_in_single_precision_and_one_shape() -> None:
    large, larger = torch.full((1, 1, 1, 1, 1), 300.0).half(), torch.full((1, 1, 1, 1, 1), 900.0).half()
    assert output_distillation_loss(large, larger).item() == 360_000.0
    with pytest.raises(ValueError, match=r"student \(1, 1, 1, 1, 1\) and teacher \(2, 1, 1, 1, 1\)"):
        output_distillation_loss(large, larger.expand(2, -1, -1, -1, -1))


@pytest.mark.parametrize(
    ("task", "adversary", "maximum", "weight"),
    [
        (3.0, 2.0, 1e4, 1.5),
        (2.0, 1e-6, 1e9, 1e6),
        (1.0, 0.0, 1e4, 1e4),
        (1.0, 1e-3, 10.0, 10.0),
        (0.0, 0.0, 1e4, 0.0),
    ],
)
def test_the_adaptive_weight_is_vqgans(task: float, adversary: float, maximum: float, weight: float) -> None:
    assert adaptive_weight(task, adversary, maximum) == pytest.approx(weight, rel=1e-6)


def test_the_adaptive_weight_balances_two_losses() -> None:
    prediction = torch.randn(5, generator=torch.Generator().manual_seed(0)).requires_grad_()
    norms = [
        torch.autograd.grad(loss, prediction)[0].norm().item()
        for loss in (prediction.square().sum(), -prediction.sum())
    ]
    assert adaptive_weight(*norms) * norms[1] == pytest.approx(norms[0], rel=1e-5)
