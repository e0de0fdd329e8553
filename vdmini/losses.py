"""The ICMD loss of VDMini (arXiv 2411.18375): individual content distillation and a multi-frame adversary."""

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
