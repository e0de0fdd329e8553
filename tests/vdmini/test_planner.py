"""The planner's set of units is the best there is: never worse than brute force or any named rule."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vdmini.blocks import Block, BlockGraph, ModelInput, Unit
from vdmini.errors import PlanError
from vdmini.models.registry import VideoModel
from vdmini.planner import Target, cheapest_units, plan_for_target
from vdmini.rules import RULES, make_plan


@st.composite
def graphs(draw: st.DrawFn) -> tuple[BlockGraph, dict[str, float]]:
    """A graph of up to seven units, some requiring an earlier one, with a score for each."""
    count = draw(st.integers(1, 7))
    blocks = [Block("rest", "rest", 0, 100, 1000, prunable=False)]
    units, scores = [], {}
    for index in range(count):
        blocks.append(Block(f"S.{index}", "S", index, draw(st.integers(0, 900)), draw(st.integers(1, 9000))))
        requires = (f"unit {draw(st.integers(0, index - 1))}",) if index and draw(st.booleans()) else ()
        units.append(Unit(f"unit {index}", (f"S.{index}",), requires))
        scores[f"unit {index}"] = draw(st.integers(0, 1000)) / 10
    return BlockGraph("test", ModelInput(1, 1, 1, 1), tuple(blocks), tuple(units)), scores


@given(graphs(), st.floats(0.05, 1.0))
@settings(max_examples=80, deadline=None)
def test_no_allowed_set_loses_less(drawn: tuple[BlockGraph, dict[str, float]], share: float) -> None:
    graph, scores = drawn
    losses = [
        sum(scores[name] for name in chosen)
        for size in range(len(graph.units) + 1)
        for chosen in itertools.combinations(scores, size)
        if _closed(graph, chosen) and graph.without(graph.blocks_of(chosen)).flops <= share * graph.flops
    ]
    if not losses:
        with pytest.raises(PlanError, match="cannot be met"):
            cheapest_units(graph, Target(flops=share), scores)
        return
    chosen = cheapest_units(graph, Target(flops=share), scores)
    assert _closed(graph, chosen)
    assert graph.without(graph.blocks_of(chosen)).flops <= share * graph.flops * (1 + 1e-6)
    assert sum(scores[name] for name in chosen) <= min(losses) + 1e-5


def _closed(graph: BlockGraph, chosen: tuple[str, ...]) -> bool:
    return all({*unit.requires} <= {*chosen} for unit in graph.units if unit.name in chosen)


@given(st.lists(st.floats(0, 100), min_size=6, max_size=6))
@settings(max_examples=25, deadline=None)
def test_plan_is_never_worse_than_a_rule_of_equal_cost(official: VideoModel, values: list[float]) -> None:
    graph = official.blocks
    scores = {unit.name: value for unit, value in zip(graph.units, values, strict=True)}
    for rule in RULES:
        try:
            removed = {*make_plan(official, rule).removed}
        except PlanError:
            continue
        share = graph.without(removed).flops / graph.flops
        theirs = sum(scores[unit.name] for unit in graph.units if {*unit.blocks} <= removed)
        ours = cheapest_units(graph, Target(flops=share), scores)
        assert sum(scores[name] for name in ours) <= theirs + 1e-5


def test_plan_meets_every_limit_at_once(official: VideoModel) -> None:
    scores = {unit.name: 1.0 for unit in official.blocks.units}
    plan = plan_for_target(official, Target(flops=0.75, params=0.7), scores)
    student = official.blocks.without(plan.removed)
    assert student.flops <= 0.75 * official.blocks.flops
    assert student.params <= 0.7 * official.blocks.params
    assert plan.rule == "planner:flops=0.75,params=0.7"


def test_measured_times_decide_a_time_target(official: VideoModel) -> None:
    units = [unit.name for unit in official.blocks.units]
    scores = dict.fromkeys(units, 1.0)
    seconds = dict.fromkeys(units, 0.01) | {"D.1.1+U.2.1": 0.5}
    assert cheapest_units(official.blocks, Target(time=0.6), scores, seconds, 1.0) == ("D.1.1+U.2.1",)
    with pytest.raises(PlanError, match="needs measured times"):
        cheapest_units(official.blocks, Target(time=0.6), scores)


def test_wrong_scores_and_targets_say_so(official: VideoModel) -> None:
    scores = {unit.name: 1.0 for unit in official.blocks.units}
    with pytest.raises(PlanError, match="no score for Mid"):
        cheapest_units(official.blocks, Target(flops=0.7), _without_mid(scores))
    with pytest.raises(PlanError, match="Mid are not 0 or more"):
        cheapest_units(official.blocks, Target(flops=0.7), {**scores, "Mid": float("nan")})
    with pytest.raises(PlanError, match="cannot be met"):
        cheapest_units(official.blocks, Target(flops=0.1), scores)
    with pytest.raises(PlanError, match="no target"):
        Target()
    with pytest.raises(PlanError, match=r"flops=1\.2 is no share"):
        Target(flops=1.2)


def _without_mid(scores: dict[str, float]) -> dict[str, float]:
    return {name: score for name, score in scores.items() if name != "Mid"}
