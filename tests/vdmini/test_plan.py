"""Plans are exact values: they survive JSON, and anything else than a plan is refused with PlanError."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vdmini.errors import PlanError
from vdmini.models.registry import VideoModel
from vdmini.models.svd import FAMILY as SVD
from vdmini.plan import PruningPlan
from vdmini.rules import make_plan

REMOVED = [
    "D.0.1",
    "D.1.1",
    "D.2.downsample",
    "D.3.0",
    "D.3.1",
    "Mid",
    "U.0.0",
    "U.0.1",
    "U.0.2",
    "U.0.upsample",
    "U.2.1",
    "U.3.1",
]
PLAN = PruningPlan(
    family="svd",
    teacher="0" * 64,
    rule="vdmini",
    kept=("D.0.0", "U.0.0", "U.0.1"),
    removed=("Mid",),
    skips=(("U.0.0", "D.0.0"), ("U.0.1", "conv_in")),
)


def test_vdmini_removes_shallow_pairs_and_the_lowest_resolution(official: VideoModel) -> None:
    plan = make_plan(official)
    assert [*plan.removed] == REMOVED
    assert sorted(plan.kept + plan.removed) == sorted(official.blocks.prunable)
    assert dict(plan.skips) == {
        "U.1.0": "D.2.1",
        "U.1.1": "D.2.0",
        "U.1.2": "D.1.downsample",
        "U.2.0": "D.1.0",
        "U.2.2": "D.0.downsample",
        "U.3.0": "D.0.0",
        "U.3.2": "conv_in",
    }


def test_none_removes_nothing(official: VideoModel) -> None:
    plan = make_plan(official, rule="none")
    assert plan.removed == ()
    assert plan.kept == official.blocks.prunable


def test_family_name_loaded_model_and_denoiser_give_the_same_plan(official: VideoModel) -> None:
    assert make_plan("svd") == make_plan(official) == make_plan(official.denoiser)


def test_unknown_rule_names_the_nearest() -> None:
    with pytest.raises(PlanError, match="did you mean 'vdmini'"):
        make_plan("svd", rule="vdmin")


def test_json_round_trip(official: VideoModel) -> None:
    for plan in (make_plan(official), make_plan(official, rule="none"), PLAN):
        assert PruningPlan.from_json(plan.to_json()) == plan
        assert PruningPlan.from_json(plan.to_json()).to_json() == plan.to_json()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"keep": []}, "unknown key 'keep'.*did you mean 'kept'"),
        ({"schema": 2}, "schema 2"),
        ({"schema": True}, "schema True"),
        ({"schema": 1.0}, "schema 1.0"),
        ({"family": ""}, "'family' must be a text"),
        ({"family": 3}, "'family' must be a text"),
        ({"teacher": "abc"}, "64 hexadecimal digits"),
        ({"kept": "D.0.0"}, "'kept' must be a list"),
        ({"kept": [1]}, "'kept' must be a list"),
        ({"kept": ["Mid", "Mid"]}, "names a block twice"),
        ({"kept": ["Mid"]}, "both kept and removed: Mid"),
        ({"skips": []}, "'skips' must be an object"),
        ({"skips": {"U.0.0": None}}, "'skips' must be an object"),
    ],
)
def test_wrong_fields_are_named(change: dict[str, Any], message: str) -> None:
    fields = {**json.loads(PLAN.to_json()), **change}
    with pytest.raises(PlanError, match=message):
        PruningPlan.from_json(json.dumps(fields))


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(PruningPlan)])
def test_missing_fields_are_named(name: str) -> None:
    fields = json.loads(PLAN.to_json())
    del fields[name]
    with pytest.raises(PlanError, match=f"lacks {name}"):
        PruningPlan.from_json(json.dumps(fields))


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "[" * 100_000, '{"kept": [], "kept": []}', "1" * 5000])
def test_other_json_is_refused(text: str) -> None:
    with pytest.raises(PlanError):
        PruningPlan.from_json(text)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(name=st.sampled_from([*json.loads(PLAN.to_json()), "extra"]), value=JSON)
def test_mutated_fields_never_fail_otherwise(name: str, value: object) -> None:
    _read_or_refuse(json.dumps({**json.loads(PLAN.to_json()), name: value}))


@given(text=st.text(max_size=40), start=st.integers(0, 400), length=st.integers(0, 40))
def test_mutated_text_never_fails_otherwise(text: str, start: int, length: int) -> None:
    whole = PLAN.to_json()
    _read_or_refuse(whole[:start] + text + whole[start + length :])


def _read_or_refuse(text: str) -> None:
    try:
        plan = PruningPlan.from_json(text)
    except PlanError:
        return
    assert PruningPlan.from_json(plan.to_json()) == plan


NAMES = st.lists(
    st.sampled_from([*REMOVED, "D.0.0", "U.0.9", "U.3.0", "D.x.0", "D.0.\u00b2", "", "conv_in"]), unique=True
)


@given(kept=NAMES, removed=NAMES)
def test_unwirable_blocks_never_fail_otherwise(kept: list[str], removed: list[str]) -> None:
    for judge in (SVD.student_names, SVD.feature_pairs):
        with contextlib.suppress(PlanError):
            judge(kept, removed)


@pytest.mark.parametrize(
    ("removed", "message"),
    [
        (["D.0.1"], "U.3 keeps 3 pairs but has 2 skips"),
        (["U.3.1"], "U.3 keeps 2 pairs but has 3 skips"),
        (["D.0.0", "D.0.1"], "every pair of D.0"),
        (["D.1.0", "D.1.1"], "D.0.downsample is kept but leads to no resolution|U.2 keeps 3"),
        (["D.0.downsample"], "D.0.downsample is removed but leads to a resolution"),
        (["U.1.upsample"], "U.1.upsample is removed but leads to a resolution"),
        (["D.3.0", "D.3.1", "U.0.0", "U.0.1", "U.0.2"], "D.2.downsample is kept but leads to no resolution"),
    ],
)
def test_what_cannot_be_wired_is_explained(official: VideoModel, removed: list[str], message: str) -> None:
    kept = [name for name in official.blocks.prunable if name not in removed]
    with pytest.raises(PlanError, match=message):
        SVD.student_names(kept, removed)


def test_a_pruned_model_is_no_teacher_for_vdmini(official: VideoModel) -> None:
    from vdmini.prune import apply_plan

    student = apply_plan(official.denoiser, make_plan(official))
    with pytest.raises(PlanError, match="does not offer"):
        make_plan(student)
