"""A student equals its teacher with the removed blocks cut out, to the last bit."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableVideoDiffusionPipeline, UNetSpatioTemporalConditionModel, WanPipeline
from tiny_transformers import TINY
from torch import Tensor

from vdmini.blocks import BlockGraph
from vdmini.cost import count_parameters
from vdmini.errors import PlanError
from vdmini.models.loading import load_model
from vdmini.models.registry import VideoModel, block_graph, family_named
from vdmini.plan import PruningPlan
from vdmini.prune import apply_plan, prune_pipeline
from vdmini.requests import ClipRequest
from vdmini.rules import make_plan
from vdmini.sample import sample_clips


def edited_teacher(teacher: UNetSpatioTemporalConditionModel, inputs: dict[str, Tensor]) -> Tensor:
    """VDMini's forward pass written out by hand over the teacher's own layers."""
    sample, context = inputs["sample"], inputs["encoder_hidden_states"]
    batch, frames = sample.shape[:2]
    embedding = teacher.time_embedding(teacher.time_proj(inputs["timestep"]))
    ids = teacher.add_time_proj(inputs["added_time_ids"].flatten()).reshape(batch, -1)
    embedding = (embedding + teacher.add_embedding(ids)).repeat_interleave(frames, 0)
    context = context.repeat_interleave(frames, 0)
    is_image = torch.zeros(batch, frames)
    down, up = teacher.down_blocks, teacher.up_blocks

    def pair(stage: torch.nn.Module, index: int, hidden: Tensor) -> Tensor:
        hidden = stage.resnets[index](hidden, embedding, image_only_indicator=is_image)
        return stage.attentions[index](hidden, context, image_only_indicator=is_image, return_dict=False)[0]

    def joined(hidden: Tensor, skip: Tensor) -> Tensor:
        return torch.cat([hidden, skip], dim=1)

    first = teacher.conv_in(sample.flatten(0, 1))
    d00 = pair(down[0], 0, first)
    d0_down = down[0].downsamplers[0](d00)
    d10 = pair(down[1], 0, d0_down)
    d1_down = down[1].downsamplers[0](d10)
    d20 = pair(down[2], 0, d1_down)
    d21 = pair(down[2], 1, d20)
    hidden = pair(up[1], 0, joined(d21, d21))
    hidden = pair(up[1], 1, joined(hidden, d20))
    hidden = pair(up[1], 2, joined(hidden, d1_down))
    hidden = up[1].upsamplers[0](hidden)
    hidden = pair(up[2], 0, joined(hidden, d10))
    hidden = pair(up[2], 2, joined(hidden, d0_down))
    hidden = up[2].upsamplers[0](hidden)
    hidden = pair(up[3], 0, joined(hidden, d00))
    hidden = pair(up[3], 2, joined(hidden, first))
    hidden = teacher.conv_out(teacher.conv_act(teacher.conv_norm_out(hidden)))
    return hidden.reshape(batch, frames, *hidden.shape[1:])


def test_student_of_svd_has_the_published_size(official: VideoModel) -> None:
    plan = make_plan(official)
    student = apply_plan(official.denoiser, plan)
    graph = block_graph(student)
    assert f"{count_parameters(student) / 1e6:.2f}" == "939.88"
    assert f"{graph.flops / official.blocks.flops:.3f}" == "0.691"
    left = official.blocks.without(plan.removed)
    assert (graph.params, graph.flops) == (left.params, left.flops)


def test_student_of_svd_has_the_native_configuration(official: VideoModel) -> None:
    config = apply_plan(official.denoiser, make_plan(official)).config
    assert tuple(config.block_out_channels) == (320, 640, 1280)
    assert config.layers_per_block == [1, 1, 2]
    assert tuple(config.num_attention_heads) == (5, 10, 20)
    assert config.mid_block_type is None


@torch.no_grad()
def test_student_equals_the_edited_teacher(
    tiny_teacher: UNetSpatioTemporalConditionModel, tiny_inputs: dict[str, Tensor], tiny_plan: PruningPlan
) -> None:
    student = apply_plan(tiny_teacher, tiny_plan)
    expected = edited_teacher(tiny_teacher, tiny_inputs)
    assert (student(**tiny_inputs).sample - expected).abs().max().item() == 0.0
    assert (tiny_teacher(**tiny_inputs).sample - expected).abs().max().item() > 0.0


@torch.no_grad()
@pytest.mark.parametrize(("height", "width"), [(12, 20), (7, 9)])
def test_student_equals_the_edited_teacher_where_four_divides_and_runs_elsewhere(
    tiny_teacher: UNetSpatioTemporalConditionModel,
    tiny_inputs: dict[str, Tensor],
    height: int,
    width: int,
    tiny_plan: PruningPlan,
) -> None:
    student = apply_plan(tiny_teacher, tiny_plan)
    inputs = {**tiny_inputs, "sample": torch.randn(2, 4, 8, height, width)}
    output = student(**inputs).sample
    assert output.shape == (2, 4, 4, height, width)
    if height % 4 == width % 4 == 0:
        assert torch.equal(output, edited_teacher(tiny_teacher, inputs))


@torch.no_grad()
def test_removing_nothing_changes_nothing(
    tiny_teacher: UNetSpatioTemporalConditionModel, tiny_inputs: dict[str, Tensor], tiny_whole_plan: PruningPlan
) -> None:
    student = apply_plan(tiny_teacher, tiny_whole_plan)
    assert torch.equal(student(**tiny_inputs).sample, tiny_teacher(**tiny_inputs).sample)


@torch.no_grad()
@pytest.mark.parametrize(
    "removed",
    [
        ["Mid"],
        ["D.0.1", "U.3.1"],
        ["D.0.1", "D.1.1", "D.2.1", "D.3.1", "U.0.1", "U.1.1", "U.2.1", "U.3.1"],
        ["D.2.downsample", "D.3.0", "D.3.1", "U.0.0", "U.0.1", "U.0.2", "U.0.upsample"],
    ],
)
def test_other_removals_apply_too(
    tiny_teacher: UNetSpatioTemporalConditionModel,
    tiny_inputs: dict[str, Tensor],
    removed: list[str],
    tiny_whole_plan: PruningPlan,
    tiny_graph: BlockGraph,
) -> None:
    student = apply_plan(tiny_teacher, with_removed(tiny_whole_plan, removed))
    assert count_parameters(student) == tiny_graph.without(removed).params
    assert student(**tiny_inputs).sample.shape == (2, 4, 4, 8, 8)


def test_student_owns_its_weights(tiny_teacher: UNetSpatioTemporalConditionModel, tiny_plan: PruningPlan) -> None:
    tiny_teacher.requires_grad_(False)
    before = {name: tensor.clone() for name, tensor in tiny_teacher.state_dict().items()}
    student = apply_plan(tiny_teacher, tiny_plan)
    assert all(parameter.requires_grad for parameter in student.parameters())
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.zero_()
    assert all(torch.equal(tensor, before[name]) for name, tensor in tiny_teacher.state_dict().items())


def test_student_keeps_dtype_device_and_mode(
    tiny_teacher: UNetSpatioTemporalConditionModel, tiny_plan: PruningPlan
) -> None:
    student = apply_plan(tiny_teacher.to(torch.bfloat16), tiny_plan)
    assert {parameter.dtype for parameter in student.parameters()} == {torch.bfloat16}
    assert not student.training
    assert apply_plan(tiny_teacher.train(), tiny_plan).training
    on_meta = apply_plan(tiny_teacher.to("meta"), tiny_plan)
    assert {parameter.device.type for parameter in on_meta.parameters()} == {"meta"}


def test_gradient_checkpointing_gives_the_same_gradients(
    tiny_teacher: UNetSpatioTemporalConditionModel, tiny_inputs: dict[str, Tensor], tiny_plan: PruningPlan
) -> None:
    gradients = []
    for checkpointing in (False, True):
        student = apply_plan(tiny_teacher, tiny_plan).train()
        if checkpointing:
            student.enable_gradient_checkpointing()
        student(**tiny_inputs).sample.square().mean().backward()
        gradients.append({name: parameter.grad for name, parameter in student.named_parameters()})
    assert all(gradient is not None for gradient in gradients[0].values())
    assert all(torch.equal(gradient, gradients[1][name]) for name, gradient in gradients[0].items())


def with_removed(plan: PruningPlan, removed: Iterable[str]) -> PruningPlan:
    """The plan with other blocks removed and the skips that follow."""
    names = {*removed}
    kept = tuple(name for name in plan.kept if name not in names)
    return dataclasses.replace(
        plan,
        kept=kept,
        removed=tuple(name for name in plan.kept if name in names),
        skips=family_named("svd").skip_wiring(kept),
    )


def test_plans_that_do_not_fit_are_refused(
    tiny_teacher: UNetSpatioTemporalConditionModel, tiny_whole_plan: PruningPlan, tiny_plan: PruningPlan
) -> None:
    replace = dataclasses.replace
    refused = {
        "is for family 'other'": replace(tiny_plan, family="other"),
        "teacher with configuration": make_plan("svd"),
        "names 'D.7.0', a block the teacher lacks": replace(tiny_plan, removed=(*tiny_plan.removed, "D.7.0")),
        "'kept' must list every block": replace(tiny_plan, kept=tiny_plan.kept[1:]),
        "in the order they run": replace(tiny_plan, kept=tiny_plan.kept[::-1]),
        "skips are not those": replace(tiny_plan, skips=tiny_plan.skips[::-1][:-1]),
        "does not fit where the student needs it": with_removed(tiny_whole_plan, ["D.1.0", "U.2.1"]),
        "keeps 3 pairs but has 2 skips": with_removed(tiny_whole_plan, ["D.0.1", "U.2.1"]),
        "as many D as U pairs": replace(
            tiny_plan, kept=tiny_plan.kept[:-1], removed=(*tiny_plan.removed, tiny_plan.kept[-1])
        ),
    }
    for message, wrong in refused.items():
        with pytest.raises(PlanError, match=message):
            apply_plan(tiny_teacher, wrong)


def test_a_wrapped_or_foreign_denoiser_is_refused(
    tiny_teacher: UNetSpatioTemporalConditionModel, tiny_plan: PruningPlan
) -> None:
    with pytest.raises(PlanError, match="no family knows Sequential"):
        apply_plan(torch.nn.Sequential(tiny_teacher), tiny_plan)


def test_a_pipeline_of_one_denoiser_gets_its_student(
    tiny_pipeline: StableVideoDiffusionPipeline, tiny_plan: PruningPlan, tiny_inputs: dict[str, Tensor]
) -> None:
    expected = apply_plan(tiny_pipeline.unet, tiny_plan)
    student = prune_pipeline(tiny_pipeline, tiny_plan)
    assert tiny_pipeline.unet is student
    with torch.no_grad():
        assert torch.equal(student(**tiny_inputs).sample, expected(**tiny_inputs).sample)


def pipeline_of_two_experts() -> WanPipeline:
    """Wan 2.2's kind of pipeline: one expert for the first of two steps, another for the second."""
    tiny = TINY["wan"]
    first, second = tiny.build_denoiser(), tiny.build_denoiser()
    with torch.no_grad():
        for weight in second.parameters():
            weight.mul_(0.5)
    pipeline = tiny.build_pipeline(first)
    pipeline.register_modules(transformer_2=second)
    pipeline.register_to_config(boundary_ratio=0.9)
    return pipeline


def test_both_experts_of_a_pipeline_are_pruned_saved_and_read(tmp_path: Path) -> None:
    pipeline = pipeline_of_two_experts()
    settings = TINY["wan"].settings
    requests = [ClipRequest("cat", 3, prompt="a cat runs"), ClipRequest("dog", 4, prompt="a red dog")]
    plan = make_plan(pipeline.transformer, "every-nth:n=2")
    whole = sample_clips(pipeline, requests, settings)
    experts = [apply_plan(each, plan).state_dict() for each in (pipeline.transformer, pipeline.transformer_2)]
    student = prune_pipeline(pipeline, plan)
    assert student is pipeline.transformer
    clips = sample_clips(pipeline, requests, settings)
    assert not np.array_equal(clips, whole)
    pipeline.save_pretrained(tmp_path / "student")
    reloaded = load_model(tmp_path / "student").pipeline
    assert reloaded.config.boundary_ratio == 0.9
    for expert, expected in zip((reloaded.transformer, reloaded.transformer_2), experts, strict=True):
        assert expert.config.num_layers == len(expert.blocks) == 3
        weights = expert.state_dict()
        assert weights.keys() == expected.keys()
        assert all(torch.equal(weights[name], tensor) for name, tensor in expected.items())
    # Copies, since the last bit of a product may depend on where in a file a weight was mapped from.
    for name in ("transformer", "transformer_2", "text_encoder", "vae"):
        setattr(reloaded, name, copy.deepcopy(getattr(reloaded, name)))
    assert np.array_equal(sample_clips(reloaded, requests, settings), clips)
    # Both experts drew the clips: without either of them these are others.
    for name in ("transformer", "transformer_2"):
        expert = getattr(reloaded, name)
        setattr(reloaded, name, copy.deepcopy(expert).requires_grad_(False))
        for weight in getattr(reloaded, name).parameters():
            weight.mul_(1.5)
        assert not np.array_equal(sample_clips(reloaded, requests, settings), clips), name
        setattr(reloaded, name, expert)


def test_a_second_expert_that_the_plan_does_not_fit_leaves_the_pipeline_whole() -> None:
    pipeline = pipeline_of_two_experts()
    plan = make_plan(pipeline.transformer, "every-nth:n=2")
    first = pipeline.transformer
    pipeline.transformer_2 = second = apply_plan(pipeline.transformer_2, plan)
    with pytest.raises(PlanError, match="make a plan for this teacher"):
        prune_pipeline(pipeline, plan)
    assert (pipeline.transformer, pipeline.transformer_2) == (first, second)
