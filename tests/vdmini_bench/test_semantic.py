"""Semantic dimensions of the drawn world: what counts, what does not, and what stands beside each score."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vdmini_bench.data.captions import Scene, Thing, choose_scenes
from vdmini_bench.metrics.semantic import DIMENSIONS, Reading, clip_marks, mean_shares, semantic_scores

ACCURACY = dict.fromkeys(DIMENSIONS, 0.9)
SINGLE = Scene((Thing("red", "disc"),), "Spin", "moss")
PAIR = Scene((Thing("red", "disc"), Thing("blue", "ring")), "Rise", "sand", "right")
SEEN_SINGLE, SEEN_PAIR = Reading.of(SINGLE), Reading.of(PAIR)


def marks(scene: Scene, seen: Reading) -> dict[str, list[bool]]:
    """The short names of the dimensions that a scene asks for, with its mark."""
    found = {name.removeprefix("embedded-"): clip_marks(name, [scene], [seen]) for name in DIMENSIONS}
    return {name: each for name, each in found.items() if each}


def test_dimensions_bear_the_names_of_those_they_stand_in_for() -> None:
    names = ("object_class", "multiple_objects", "color", "human_action", "spatial_relationship", "scene")
    assert tuple(DIMENSIONS) == tuple(f"embedded-{name}" for name in names)


def test_each_caption_asks_for_what_it_says() -> None:
    assert marks(SINGLE, SEEN_SINGLE) == {name: [True] for name in ("object_class", "color", "human_action", "scene")}
    assert marks(PAIR, SEEN_PAIR) == {name: [True] for name in ("multiple_objects", "spatial_relationship", "scene")}
    assert marks(Scene((), "Rest", "moss"), SEEN_SINGLE) == {"scene": [True]}


@pytest.mark.parametrize(
    ("scene", "seen", "lost"),
    [
        (SINGLE, dataclasses.replace(SEEN_SINGLE, shapes=("ring", None)), {"object_class", "color"}),
        (SINGLE, dataclasses.replace(SEEN_SINGLE, colours=("green", None)), {"color"}),
        # A red square beside an orange disc is no red disc.
        (
            SINGLE,
            dataclasses.replace(SEEN_SINGLE, shapes=("square", "disc"), colours=("red", "orange")),
            {"color"},
        ),
        (SINGLE, dataclasses.replace(SEEN_SINGLE, motion="Sway"), {"human_action"}),
        (SINGLE, dataclasses.replace(SEEN_SINGLE, background="plum"), {"scene"}),
        (SINGLE, dataclasses.replace(SEEN_SINGLE, shapes=(None, None)), {"object_class", "color"}),
        (PAIR, dataclasses.replace(SEEN_PAIR, shapes=("disc", "ring")), {"spatial_relationship"}),
        (PAIR, dataclasses.replace(SEEN_PAIR, shapes=("ring", None)), {"multiple_objects", "spatial_relationship"}),
        (PAIR, dataclasses.replace(SEEN_PAIR, shapes=("ring", "ring")), {"multiple_objects", "spatial_relationship"}),
        (PAIR, dataclasses.replace(SEEN_PAIR, colours=("green", "white"), motion="Fall"), set()),
    ],
)
def test_one_fault_costs_its_own_dimension(scene: Scene, seen: Reading, lost: set[str]) -> None:
    assert {name for name, mark in marks(scene, seen).items() if mark == [False]} == lost


def test_right_of_means_that_the_second_thing_is_seen_first() -> None:
    assert SEEN_PAIR.shapes == ("ring", "disc")
    assert SEEN_PAIR.colours == ("blue", "red")
    mirrored = dataclasses.replace(PAIR, relation="left")
    assert marks(mirrored, SEEN_PAIR)["spatial_relationship"] == [False]


@given(st.integers(0, 10_000))
def test_drawn_clips_seen_without_fault_score_one(skip: int) -> None:
    scenes = [*choose_scenes(2, "any", 1, skip), *choose_scenes(2, "any", 2, skip)]
    assert mean_shares(scenes, [Reading.of(scene) for scene in scenes]) == dict.fromkeys(DIMENSIONS, 1.0)


def test_scores_say_how_sure_they_are_and_what_judged_them() -> None:
    wrong = dataclasses.replace(SEEN_SINGLE, motion="Rest")
    scores = {
        score.dimension: score
        for score in semantic_scores([SINGLE] * 4, [SEEN_SINGLE, wrong, SEEN_SINGLE, SEEN_SINGLE], ACCURACY)
    }
    action = scores["embedded-human_action"]
    assert (action.value, action.n, action.classifier_accuracy) == (0.75, 4, 0.9)
    assert action.standard_error == pytest.approx((0.75 * 0.25 / 4) ** 0.5)
    assert str(action).startswith("embedded-human_action: 0.750 ± 0.217 of 4 (stand-in: drawn world")
    assert str(action).endswith("on drawn clips 0.900)")
    # Never 0 for what was not asked.
    pairs = scores["embedded-multiple_objects"]
    assert (pairs.value, pairs.standard_error, pairs.n) == (None, None, 0)
    assert "no clips" in str(pairs)


def test_what_cannot_be_scored_is_refused() -> None:
    with pytest.raises(ValueError, match="1 readings of 2 scenes"):
        clip_marks("embedded-scene", [SINGLE, PAIR], [SEEN_SINGLE])
    with pytest.raises(ValueError, match="unknown dimension 'scene'"):
        clip_marks("scene", [SINGLE], [SEEN_SINGLE])
    with pytest.raises(ValueError, match="unknown in embedded-color"):
        semantic_scores([SINGLE], [SEEN_SINGLE], {name: 1.0 for name in DIMENSIONS if name != "embedded-color"})
    with pytest.raises(ValueError, match="no scene asks for embedded-multiple_objects"):
        mean_shares([SINGLE], [SEEN_SINGLE])
