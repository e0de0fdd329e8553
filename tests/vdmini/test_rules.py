"""Named rules choose the published blocks, keep to their share of the FLOPs, and say why when they do not fit."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vdmini.blocks import BlockGraph
from vdmini.errors import PlanError
from vdmini.models.loading import load_model
from vdmini.models.registry import VideoModel
from vdmini.rules import RULES, make_plan, parse_rule

UNET_RULES = [name for name in RULES if name not in ("every-nth", "keep")]


# Parameters in millions and FLOP ratios of SVD's students at 14 frames of 72x128 latents.
@pytest.mark.parametrize(
    ("rule", "millions", "flops"),
    [
        ("none", 1524.623, 1.0),
        ("vdmini", 939.88, 0.691),
        ("second-pairs", 1422.1, 0.735),
        ("bk-base", 1014.9, 0.631),
        ("bk-small", 829.3, 0.617),
        ("bk-tiny", 636.0, 0.596),
    ],
)
def test_students_of_svd_have_the_known_sizes(official: VideoModel, rule: str, millions: float, flops: float) -> None:
    student = official.blocks.without(make_plan(official, rule).removed)
    assert student.params / 1e6 == pytest.approx(millions, abs=0.06)
    assert student.flops / official.blocks.flops == pytest.approx(flops, abs=6e-4)


@pytest.mark.parametrize("rule", UNET_RULES)
def test_every_rule_for_unets_leaves_a_unet_that_can_be_wired(official: VideoModel, rule: str) -> None:
    plan = make_plan(official, rule)
    assert plan.rule == rule
    assert sorted(plan.kept + plan.removed) == sorted(official.blocks.prunable)


@given(
    st.sampled_from(["uniform", "random", "deepest-first", "shallowest-first"]),
    st.floats(0.5, 1.0),
    st.integers(0, 2**31),
)
@settings(max_examples=40, deadline=None)
def test_share_of_the_flops_is_kept(official: VideoModel, rule: str, share: float, seed: int) -> None:
    text = f"{rule}:flops={share!r}" + (f",seed={seed}" if rule == "random" else "")
    graph = official.blocks
    chosen, options = parse_rule(text)
    removed = chosen.choose(graph, options)
    left = graph.without([*removed])
    assert left.flops >= share * graph.flops
    if rule != "uniform":
        # No unit that is left whole could still go.
        assert all(
            graph.without(graph.blocks_of([*_gone(graph, removed), unit.name])).flops < share * graph.flops
            for unit in left.units
        )


def _gone(graph: BlockGraph, removed: object) -> list[str]:
    assert isinstance(removed, tuple)
    return [unit.name for unit in graph.units if {*unit.blocks} <= {*removed}]


def test_random_is_decided_by_its_seed(official: VideoModel) -> None:
    plans = [make_plan(official, f"random:flops=0.8,seed={seed}") for seed in range(6)]
    assert plans[0] == make_plan(official, "random:flops=0.8,seed=0")
    assert len({plan.removed for plan in plans}) > 1


def test_deepest_first_starts_at_the_middle_and_vdmini_does_not_touch_the_deep_pairs(official: VideoModel) -> None:
    assert make_plan(official, "deepest-first:flops=0.98").removed == ("Mid",)
    deepest = make_plan(official, "deepest-first:flops=0.8").removed
    assert {"Mid", "D.2.1", "U.1.1"} <= {*deepest}
    assert "D.0.1" not in deepest
    assert not {"D.2.1", "U.1.1"} & {*make_plan(official).removed}


def test_shallowest_first_is_the_other_end(official: VideoModel) -> None:
    graph = official.blocks
    shallow = make_plan(official, "shallowest-first:flops=0.9").removed
    deep = make_plan(official, "deepest-first:flops=0.9").removed
    depth = {block.name: block.depth for block in graph.blocks}
    assert max(depth[name] for name in shallow) < max(depth[name] for name in deep)
    assert not {"Mid", "D.3.0", "U.0.1"} & {*shallow}


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("bk-bas", "did you mean 'bk-base'"),
        ("random:sed=1", "did you mean 'seed'"),
        ("vdmini:flops=0.5", "it takes none"),
        ("uniform:flops=much", "is no number"),
        ("uniform:flops", "is no number"),
        ("uniform:flops=1.5", "no share"),
        ("uniform:flops=nan", "no share"),
        ("every-nth", "for transformers"),
        ("keep:Dual=3", "for transformers"),
    ],
)
def test_wrong_rules_say_what_to_write(official: VideoModel, rule: str, message: str) -> None:
    with pytest.raises(PlanError, match=message):
        make_plan(official, rule)


@pytest.fixture(scope="module")
def hunyuanvideo() -> VideoModel:
    """HunyuanVideo at its published size, without memory."""
    return load_model("hunyuanvideo", random_weights=True, device="meta")


# Any 12 of the 60 blocks cost the same FLOPs, but not the same number of weights.
@pytest.mark.parametrize(
    ("rule", "billions"),
    [("every-nth:n=5", 10.33), ("keep:Dual=20,Single=28", 11.12), ("keep:Dual=12,Single=36", 9.54)],
)
def test_students_of_hunyuanvideo_have_the_known_sizes(hunyuanvideo: VideoModel, rule: str, billions: float) -> None:
    plan = make_plan(hunyuanvideo, rule)
    student = hunyuanvideo.blocks.without(plan.removed)
    assert len(plan.removed) == 12
    assert student.params / 1e9 == pytest.approx(billions, abs=0.005)
    assert hunyuanvideo.blocks.flops / student.flops == pytest.approx(1.25, abs=0.005)


def test_keep_leaves_the_ends_of_a_stack(hunyuanvideo: VideoModel) -> None:
    kept = make_plan(hunyuanvideo, "keep:Single=2").kept
    assert [name for name in kept if name.startswith("Single")] == ["Single.0", "Single.39"]
    assert sum(name.startswith("Dual") for name in kept) == 20


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("vdmini", "for transformers, 'every-nth'"),
        ("keep:Triple=3", r"the stacks are Dual \(20\), Single \(40\)"),
        ("keep:Dual=21", "cannot be kept of 20 blocks"),
        ("every-nth:n=1", "choose 2 or more"),
    ],
)
def test_rules_that_do_not_fit_a_transformer_say_so(hunyuanvideo: VideoModel, rule: str, message: str) -> None:
    with pytest.raises(PlanError, match=message):
        make_plan(hunyuanvideo, rule)


def test_rules_by_share_fit_transformers_too(hunyuanvideo: VideoModel) -> None:
    graph = hunyuanvideo.blocks
    for rule in ("uniform", "random", "deepest-first", "shallowest-first"):
        left = graph.without(make_plan(hunyuanvideo, f"{rule}:flops=0.8").removed)
        assert 0.8 <= left.flops / graph.flops < 0.82
    deepest = make_plan(hunyuanvideo, "deepest-first:flops=0.8").removed
    assert deepest[-1] == "Single.39"
    assert not any(name.startswith("Dual") for name in deepest)
    shallowest = make_plan(hunyuanvideo, "shallowest-first:flops=0.8").removed
    assert shallowest[0] == "Dual.0"
    assert not any(name.startswith("Single") for name in shallowest)
