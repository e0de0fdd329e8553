"""Taking a block out changes what it did and nothing else, and the distances tell content from motion."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers import UNetSpatioTemporalConditionModel
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from vdmini.blocks import BlockGraph
from vdmini.importance import (
    CannotBypassError,
    block_seconds,
    bypassed,
    candidates,
    content_distance,
    marginal_scores,
    motion_distance,
)
from vdmini.models.registry import family_of


def moving_square(speed: int, brightness: int = 200, start: int = 4) -> np.ndarray:
    """Two clips T 10 of a square that moves over a dark ground, B T H W C uint8, wrapping round at the border."""
    clip = np.full((10, 32, 32, 3), 30, dtype=np.uint8)
    for frame in range(10):
        clip[frame, 10:18, 2:10] = brightness
        clip[frame] = np.roll(clip[frame], start + speed * frame, axis=1)
    return np.stack([clip, clip])


def test_content_is_blind_to_where_and_motion_to_how_bright() -> None:
    clip = moving_square(1)
    assert content_distance(clip, clip) == motion_distance(clip, clip) == 0
    # Twice as fast: the same frames in other places.
    assert content_distance(clip, moving_square(2)) < 0.01
    assert motion_distance(clip, moving_square(2)) > 0.5
    # Another brightness: the same motion of another thing.
    assert content_distance(clip, moving_square(1, brightness=120)) > 0.1
    # Shifted throughout: nothing new in any frame.
    assert content_distance(clip, moving_square(1, start=9)) < 0.01


def test_still_clip_and_black_clip_are_at_distance_one() -> None:
    clip = moving_square(1)
    still = np.repeat(clip[:, :1], 10, axis=1)
    assert motion_distance(clip, still) == pytest.approx(1.0, abs=1e-4)
    assert content_distance(clip, np.zeros_like(clip)) == pytest.approx(1.0, abs=1e-4)


@torch.no_grad()
def test_bypass_hands_on_the_input_of_a_pair(
    tiny_teacher: UNetSpatioTemporalConditionModel, tiny_inputs: dict[str, Tensor]
) -> None:
    given_to, came_out = [], []
    resnet, attention = family_of(tiny_teacher).block_modules(tiny_teacher)["D.1.1"]
    with bypassed(tiny_teacher, "D.1.1"):
        hooks = [
            resnet.register_forward_pre_hook(lambda module, inputs: given_to.append(inputs[0])),
            attention.register_forward_hook(lambda module, inputs, output: came_out.append(output[0])),
        ]
        changed = tiny_teacher(**tiny_inputs).sample
        for hook in hooks:
            hook.remove()
    assert torch.equal(given_to[0], came_out[0])
    whole = tiny_teacher(**tiny_inputs).sample
    assert not torch.equal(whole, changed)
    assert torch.equal(whole, tiny_teacher(**tiny_inputs).sample)


@torch.no_grad()
def test_bypassed_middle_equals_a_teacher_without_it(
    tiny_teacher: UNetSpatioTemporalConditionModel, tiny_inputs: dict[str, Tensor]
) -> None:
    from vdmini.prune import apply_plan
    from vdmini.rules import plan_removing

    pruned = apply_plan(tiny_teacher, plan_removing(tiny_teacher, {"Mid"}, "without Mid"))
    with bypassed(tiny_teacher, "Mid"):
        assert torch.equal(tiny_teacher(**tiny_inputs).sample, pruned(**tiny_inputs).sample)


@torch.no_grad()
def test_every_block_is_bypassed_or_says_that_it_cannot_be(
    tiny_teacher: UNetSpatioTemporalConditionModel, tiny_graph: BlockGraph, tiny_inputs: dict[str, Tensor]
) -> None:
    refused = []
    for name in tiny_graph.prunable:
        try:
            with bypassed(tiny_teacher, name):
                tiny_teacher(**tiny_inputs)
        except CannotBypassError:
            refused.append(name)
    # 32 channels to 64, 64 to 32, and whatever changes the resolution.
    samplers = [name for name in tiny_graph.prunable if "sample" in name]
    assert {*refused} == {"D.1.0", "U.3.0", *samplers}
    with pytest.raises(ValueError, match=r"no block 'D\.9'"), bypassed(tiny_teacher, "D.9"):
        pass


def test_candidates_are_all_blocks_and_units_once(tiny_graph: BlockGraph) -> None:
    found = candidates(tiny_graph)
    assert [each.name for each in found if each.kind == "block"] == [*tiny_graph.prunable]
    assert {each.name for each in found if each.kind == "unit"} == {unit.name for unit in tiny_graph.units}
    lowest = next(each for each in found if each.name == "D.3+U.0")
    assert "D.3.1" in lowest.blocks, "what a unit requires goes with it"


@given(st.data())
@settings(max_examples=30, deadline=None)
def test_marginal_scores_sum_to_the_score_of_a_unit_with_what_it_requires(
    tiny_graph: BlockGraph, data: st.DataObject
) -> None:
    scores = {unit.name: data.draw(st.floats(0, 10)) for unit in tiny_graph.units}
    marginal = marginal_scores(tiny_graph, scores)
    assert min(marginal.values()) >= 0
    for unit in tiny_graph.units:
        gone = {*tiny_graph.blocks_of([unit.name])}
        required = sum(marginal[each.name] for each in tiny_graph.units if {*each.blocks} < gone and each != unit)
        # A unit that adds less than nothing to what it requires counts as nothing.
        assert marginal[unit.name] + required == pytest.approx(max(scores[unit.name], required))


def test_block_seconds_cover_the_pass(
    tiny_teacher: UNetSpatioTemporalConditionModel, tiny_inputs: dict[str, Tensor]
) -> None:
    seconds = block_seconds(tiny_teacher, tiny_inputs, runs=2)
    assert {*seconds} == {*family_of(tiny_teacher).block_modules(tiny_teacher)}
    assert min(seconds.values()) > 0
    assert not any(module._forward_hooks for module in tiny_teacher.modules())
