"""Stage outputs of student and teacher pair up for distillation."""

from __future__ import annotations

import pytest
import torch
from diffusers import UNetSpatioTemporalConditionModel
from torch import Tensor, nn

from vdmini.features import FeatureTap, feature_pairs
from vdmini.plan import PruningPlan
from vdmini.prune import apply_plan

VDMINI_PAIRS = [
    ("D.0", "D.0"),
    ("D.1", "D.1"),
    ("D.2", "D.2.1"),
    ("U.0", "U.1"),
    ("U.1", "U.2"),
    ("U.2", "U.3"),
]


def test_vdmini_pairs_stages_of_the_same_resolution(
    tiny_teacher: UNetSpatioTemporalConditionModel, tiny_plan: PruningPlan
) -> None:
    assert feature_pairs(tiny_plan) == VDMINI_PAIRS


def test_an_unpruned_student_pairs_every_stage(
    tiny_teacher: UNetSpatioTemporalConditionModel, tiny_whole_plan: PruningPlan
) -> None:
    pairs = feature_pairs(tiny_whole_plan)
    assert pairs == [(stage, stage) for stage in ("D.0", "D.1", "D.2", "D.3", "Mid", "U.0", "U.1", "U.2", "U.3")]


@torch.no_grad()
def test_paired_outputs_have_the_same_shape(
    tiny_teacher: UNetSpatioTemporalConditionModel, tiny_inputs: dict[str, Tensor], tiny_plan: PruningPlan
) -> None:
    student = apply_plan(tiny_teacher, tiny_plan)
    student_stages, teacher_stages = zip(*feature_pairs(tiny_plan), strict=True)
    with FeatureTap(student, student_stages) as student_tap, FeatureTap(tiny_teacher, teacher_stages) as teacher_tap:
        student(**tiny_inputs)
        tiny_teacher(**tiny_inputs)
    shapes = [tuple(feature.shape) for feature in student_tap.features]
    assert shapes == [tuple(feature.shape) for feature in teacher_tap.features]
    # Two clips of four frames; stages of 8x8 and 4x4 end behind their sampler.
    assert shapes == [(8, 32, 4, 4), (8, 64, 2, 2), (8, 64, 2, 2), (8, 64, 4, 4), (8, 64, 8, 8), (8, 32, 8, 8)]


@torch.no_grad()
def test_the_teachers_last_attention_is_what_its_downsampler_reads(
    tiny_teacher: UNetSpatioTemporalConditionModel, tiny_inputs: dict[str, Tensor]
) -> None:
    with FeatureTap(tiny_teacher, ["D.2.1", "D.2"]) as tap:
        tiny_teacher(**tiny_inputs)
    attention, stage = tap.features
    assert torch.equal(tiny_teacher.down_blocks[2].downsamplers[0](attention), stage)


class _Wrapper(nn.Module):
    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, **inputs: Tensor) -> object:
        return self.module(**inputs)


@torch.no_grad()
def test_hooks_run_inside_a_wrapper(
    tiny_teacher: UNetSpatioTemporalConditionModel, tiny_inputs: dict[str, Tensor]
) -> None:
    with FeatureTap(tiny_teacher, ["Mid"]) as tap:
        _Wrapper(tiny_teacher)(**tiny_inputs)
    assert tap.features[0].shape == (8, 64, 1, 1)


def test_gradients_flow_through_features_with_checkpointing(
    tiny_teacher: UNetSpatioTemporalConditionModel, tiny_inputs: dict[str, Tensor], tiny_plan: PruningPlan
) -> None:
    gradients = []
    for checkpointing in (False, True):
        student = apply_plan(tiny_teacher, tiny_plan).train()
        if checkpointing:
            student.enable_gradient_checkpointing()
        with FeatureTap(student, ["D.0", "U.2.1"]) as tap:
            student(**tiny_inputs)
            sum(feature.square().mean() for feature in tap.features).backward()
        gradients.append(student.conv_in.weight.grad)
    assert torch.equal(*gradients)


@torch.no_grad()
def test_a_closed_tap_leaves_nothing_behind(
    tiny_teacher: UNetSpatioTemporalConditionModel, tiny_inputs: dict[str, Tensor]
) -> None:
    with FeatureTap(tiny_teacher, ["D.0"]) as tap:
        with pytest.raises(RuntimeError, match=r"no output of D\.0 was recorded"):
            _ = tap.features
        tiny_teacher(**tiny_inputs)
    recorded = tap.features[0]
    tiny_teacher(**{**tiny_inputs, "sample": tiny_inputs["sample"] + 1})
    assert tap.features[0] is recorded
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in tiny_teacher.modules())


def test_unknown_stages_are_named(tiny_teacher: UNetSpatioTemporalConditionModel) -> None:
    with pytest.raises(ValueError, match=r"no stage 'D\.9'"):
        FeatureTap(tiny_teacher, ["D.9"])
