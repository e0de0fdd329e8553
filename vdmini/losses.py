"""The ICMD loss of VDMini (arXiv 2411.18375): individual content distillation and a multi-frame adversary.

Beside them what a user may add: output distillation, the R1 penalty and an adaptive weight of the adversary.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def icd_loss(student_features: Sequence[Tensor], teacher_features: Sequence[Tensor]) -> Tensor:
    """Individual content distillation: the sum over stages of the mean squared feature difference.

    Features are (B T) C H W, one tensor a stage, so each frame is compared on its own; no gradient reaches the teacher.

    Raises:
        ValueError: the lists differ in length, are empty, or a pair differs in shape.
    """
    if len(student_features) != len(teacher_features) or not student_features:
        raise ValueError(
            f"icd_loss pairs stages one to one: got {len(student_features)} student and {len(teacher_features)} teacher"
        )
    total = torch.zeros((), device=student_features[0].device)
    for stage, (student, teacher) in enumerate(zip(student_features, teacher_features, strict=True)):
        if student.shape != teacher.shape:
            raise ValueError(f"stage {stage}: student {tuple(student.shape)} against teacher {tuple(teacher.shape)}")
        total = total + (student.float() - teacher.detach().float()).square().mean()
    return total


def mca_generator_loss(student_scores: Tensor) -> Tensor:
    """The student's side of the multi-frame content adversarial loss: -E[D(student)], scores of any shape."""
    return -student_scores.float().mean()


def mca_discriminator_loss(student_scores: Tensor, teacher_scores: Tensor) -> Tensor:
    """The discriminator's hinge loss: E[max(0, 1 + D(student))] + E[max(0, 1 - D(teacher))], scores of any shape."""
    fake = torch.relu(1 + student_scores.float()).mean()
    real = torch.relu(1 - teacher_scores.float()).mean()
    return fake + real


def r1_penalty(scores: Tensor, inputs: Tensor | Sequence[Tensor]) -> Tensor:
    """The squared gradient of real clips' scores, averaged over clips: R1 without its gamma / 2 (arXiv 1801.04406).

    `scores` are B ..., and a clip's score is their mean, as in the hinge. `inputs`, with gradients required, are what
    they were computed from: the clips, or feature maps whose first dimension holds the clips' frames. The penalty can
    be differentiated in turn.

    Raises:
        ValueError: an input does not require gradients.
    """
    inputs = [inputs] if isinstance(inputs, Tensor) else inputs
    if not all(each.requires_grad for each in inputs):
        raise ValueError("r1_penalty needs the gradient of its inputs: call requires_grad_() before scoring them")
    clips = len(scores)
    total = scores.float().view(clips, -1).mean(1).sum()
    gradients = torch.autograd.grad(total, inputs, create_graph=True)
    return torch.stack([gradient.float().square().sum() for gradient in gradients]).sum() / clips


def output_distillation_loss(student_prediction: Tensor, teacher_prediction: Tensor) -> Tensor:
    """The mean squared difference of two predictions of one shape, B T C H W; no gradient reaches the teacher.

    Output-level knowledge distillation of BK-SDM (arXiv 2305.15798).

    Raises:
        ValueError: the predictions differ in shape.
    """
    if student_prediction.shape != teacher_prediction.shape:
        student, teacher = tuple(student_prediction.shape), tuple(teacher_prediction.shape)
        raise ValueError(f"output_distillation_loss compares one shape: got student {student} and teacher {teacher}")
    return (student_prediction.float() - teacher_prediction.detach().float()).square().mean()


def adaptive_weight(task_gradient_norm: float, adversarial_gradient_norm: float, maximum: float = 1e4) -> float:
    """The weight that makes the adversary pull as hard as the task, at most `maximum`.

    VQGAN (arXiv 2012.09841, equation 7) with its delta of 1e-6; the norms are those of both losses' gradients at one
    and the same tensor.
    """
    return min(task_gradient_norm / (adversarial_gradient_norm + 1e-6), maximum)
