"""ConsisID's blocks leave with the layer that reads a face, in the groups that read it once."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import ConsisIDPipeline, ConsisIDTransformer3DModel
from PIL import Image
from tiny_transformers import TINY
from torch import Tensor, nn

from vdmini.blocks import ModelInput
from vdmini.errors import PlanError
from vdmini.models.consisid import FAMILY
from vdmini.models.loading import load_model
from vdmini.models.registry import block_graph
from vdmini.plan import PruningPlan, architecture_sha256
from vdmini.prune import apply_plan, prune_pipeline

MIDDLE = ("Block.2", "Block.3")


@pytest.fixture
def teacher() -> nn.Module:
    """Six blocks, of which the first, third and fifth are read by a layer with the face."""
    torch.manual_seed(0)
    faceless = FAMILY.architecture(TINY["consisid"].denoiser())
    network = ConsisIDTransformer3DModel(**{**faceless, "is_train_face": True}).eval()
    for weight in network.parameters():
        if not weight.any():
            nn.init.normal_(weight, std=0.1)
    return network


def plan_without(teacher: nn.Module, removed: tuple[str, ...]) -> PruningPlan:
    names = [f"Block.{place}" for place in range(6)]
    return PruningPlan(
        family="consisid",
        teacher=architecture_sha256(FAMILY.architecture(teacher)),
        rule="by hand",
        kept=tuple(name for name in names if name not in removed),
        removed=removed,
        skips=(),
    )


def inputs(teacher: nn.Module) -> dict[str, Tensor]:
    """Random ones for two clips, with the face of each."""
    generator = torch.Generator().manual_seed(1)
    shapes = FAMILY.input_shapes(teacher, ModelInput(2, 3, 2, 4))
    assert {"id_cond", "id_vit_hidden"} < {*shapes}
    return {name: torch.rand(shape, generator=generator) for name, shape in shapes.items()}


def test_a_group_and_its_reader_cost_what_the_teacher_loses(teacher: nn.Module) -> None:
    graph = block_graph(teacher)
    assert [unit.blocks for unit in graph.units] == [
        ("Block.0", "Block.1"), ("Block.2", "Block.3"), ("Block.4", "Block.5"),
    ]  # fmt: skip
    first, second = (graph.stage("Block")[place].params for place in (0, 1))
    assert first - second == sum(weight.numel() for weight in teacher.perceiver_cross_attention[0].parameters())
    student = block_graph(apply_plan(teacher, plan_without(teacher, MIDDLE)))
    left = graph.without(MIDDLE)
    assert (student.params, student.flops) == (left.params, left.flops)


@torch.no_grad()
def test_a_student_equals_the_teacher_without_those_blocks_and_their_reader(teacher: nn.Module) -> None:
    student = apply_plan(teacher, plan_without(teacher, MIDDLE))
    shorter = copy.deepcopy(teacher)
    del shorter.transformer_blocks[2:4], shorter.perceiver_cross_attention[1]
    given = inputs(teacher)
    assert torch.equal(student(**given).sample, shorter(**given).sample)
    changed = student(**{**given, "id_cond": given["id_cond"] + 1}).sample
    assert not torch.equal(changed, shorter(**given).sample)


@pytest.mark.parametrize("removed", [("Block.2",), ("Block.3",), ("Block.1", "Block.2")])
def test_half_a_group_does_not_leave(teacher: nn.Module, removed: tuple[str, ...]) -> None:
    with pytest.raises(PlanError, match=r"Block\.\d and Block\.\d leave together: remove all of them or none"):
        apply_plan(teacher, plan_without(teacher, removed))


def test_its_pipeline_samples_with_a_face_before_and_after_it_was_saved(teacher: nn.Module, tmp_path: Path) -> None:
    tiny = TINY["consisid"]
    pipeline = tiny.build_pipeline(teacher)
    with pytest.raises(ValueError, match="animates a face by embeddings that networks outside its pipeline make"):
        FAMILY.sample(pipeline, tiny.requests, tiny.settings)
    prune_pipeline(pipeline, plan_without(teacher, MIDDLE))
    pipeline.save_pretrained(tmp_path)
    faces = {"id_cond": torch.ones(1, 2), "id_vit_hidden": [torch.ones(1, 2, 8)] * 2}
    clips = []
    for run in (pipeline, load_model(tmp_path).pipeline):
        assert isinstance(run, ConsisIDPipeline)
        generator = torch.Generator().manual_seed(3)
        image = Image.fromarray(tiny.picture(3))
        made = run(
            image, "a cat", num_frames=9, height=16, width=32, num_inference_steps=2, generator=generator,
            output_type="np", **faces,
        )  # fmt: skip
        clips.append(made.frames)
    assert np.abs(clips[0] - clips[1]).max() < 1e-5
