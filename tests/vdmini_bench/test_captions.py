from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vdmini_bench.data.captions import (
    HELD_OUT_SETTINGS,
    HELD_OUT_THINGS,
    MOTIONS,
    Scene,
    Thing,
    choose_scenes,
    covered_places,
    draw_scene,
    draw_scenes,
    parse_caption,
)
from vdmini_bench.data.synthetic import BACKGROUNDS, COLOURS, SHAPES

INDICES = st.integers(0, 100_000)


def scene_of(index: int) -> Scene:
    return choose_scenes(1, "any", skip=index)[0]


@given(INDICES)
@settings(max_examples=200, deadline=None)
def test_a_caption_says_all_that_a_scene_is(index: int) -> None:
    scene = scene_of(index)
    assert parse_caption(scene.caption) == scene
    assert parse_caption(f"  {scene.caption.upper()}. ") == scene


def test_captions_are_english_sentences() -> None:
    single = Scene((Thing("orange", "disc", "large"),), "SlideLeft", "moss")
    assert single.caption == "a large orange disc slides left over a moss background"
    pair = Scene((Thing("orange", "ring"), Thing("blue", "square")), "Rise", "sand", "right")
    assert pair.caption == "an orange ring is right of a blue square and both rise over a sand background"
    assert Scene((), "Rest", "plum").caption == "a plum background"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a red disc",
        "a red cat falls over a moss background",
        "a red disc is left of a red ring and both fall over a moss background",
        "a red disc is left of a blue ring and both orbit over a moss background",
    ],
)
def test_other_sentences_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"no sentence of the drawn world|a pair differs"):
        parse_caption(text)


@pytest.mark.parametrize(
    ("things", "motion", "relation", "said"),
    [
        ((Thing("red", "disc"), Thing("blue", "ring")), "Fall", None, "relation None"),
        ((Thing("red", "disc"),), "Fall", "left", "None for fewer"),
        ((Thing("red", "disc"), Thing("blue", "disc")), "Fall", "left", "differs in colour and shape"),
        ((Thing("red", "disc"), Thing("blue", "ring")), "SlideLeft", "left", "of a pair: choose one of"),
        ((), "Fall", None, "use 'Rest'"),
        ((Thing("red", "disc"),), "Fly", None, "unknown motion 'Fly'"),
    ],
)
def test_scenes_that_no_caption_could_tell_are_refused(
    things: tuple[Thing, ...], motion: str, relation: None, said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        Scene(things, motion, "moss", relation)


def test_a_split_holds_its_combinations_and_no_others() -> None:
    def combinations(scene: Scene) -> set[tuple[str, str]]:
        return {(thing.colour, thing.shape) for thing in scene.things} | {(scene.motion, scene.background)}

    train, held_out = choose_scenes(1500, "train"), choose_scenes(300, "held-out")
    never = HELD_OUT_THINGS | HELD_OUT_SETTINGS
    assert not set.union(*map(combinations, train)) & never
    assert all(combinations(scene) & never for scene in held_out)
    assert never <= set.union(*map(combinations, held_out))
    # Each word is known from training all the same.
    assert {thing.colour for scene in train for thing in scene.things} == set(COLOURS)
    assert {thing.shape for scene in train for thing in scene.things} == set(SHAPES)
    assert {scene.motion for scene in train} == set(MOTIONS)
    assert {scene.background for scene in train} == set(BACKGROUNDS)
    assert {len(scene.things) for scene in train} == {0, 1, 2}


def test_lists_of_scenes_are_cut_from_one_list() -> None:
    assert choose_scenes(5, "train")[3:] == choose_scenes(2, "train", skip=3)
    assert all(len(scene.things) == 2 for scene in choose_scenes(20, "any", things=2))
    with pytest.raises(ValueError, match="combines nothing"):
        choose_scenes(1, "held-out", things=0)


@given(INDICES, st.integers(0, 10_000))
@settings(max_examples=30, deadline=None)
def test_a_clip_is_the_same_on_every_call_and_another_for_another_seed(index: int, seed: int) -> None:
    scene = scene_of(index)
    clip = draw_scene(scene, seed)
    assert clip.frames.shape == (10, 32, 32, 3)
    assert clip.frames.dtype == np.uint8
    assert clip.caption == scene.caption
    assert np.array_equal(clip.frames, draw_scene(scene, seed).frames)
    assert not np.array_equal(clip.frames, draw_scene(scene, seed + 1).frames)


def test_upright_things_stand_on_a_side_and_are_what_the_seed_says_otherwise() -> None:
    scene = Scene((Thing("red", "square", "large"),), "Rest", "moss")
    for seed in range(5):
        frame = draw_scene(scene, seed, upright=True).frames[0].astype(float)
        rows, columns = np.nonzero(np.abs(frame - COLOURS["red"]).sum(-1) < 60)
        # A square that stands on a side fills the box around it.
        assert len(rows) > 0.95 * np.ptp([*rows, rows.max() + 1]) * np.ptp([*columns, columns.max() + 1])
        assert (covered_places(scene, seed) != covered_places(scene, seed, upright=True)).any()
        corner = np.s_[:, :3, :3]
        assert np.array_equal(
            draw_scene(scene, seed).frames[corner], draw_scene(scene, seed, upright=True).frames[corner]
        )


def test_what_is_drawn_stays_what_was_drawn() -> None:
    # Shipped weights and recorded accuracies were made from these pictures.
    scenes = choose_scenes(3, "train")
    assert [scene.caption for scene in scenes] == [
        "a small white ring shrinks over a plum background",
        "a small yellow disc slides right over a moss background",
        "a large green square circles over a slate background",
    ]
    assert draw_scenes(scenes, 0).astype(np.int64).sum() == pytest.approx(8762213, rel=1e-4)


def columns_of(colour: str, scene: Scene, seed: int) -> np.ndarray:
    """Mean column of the pixels nearest to a colour, for each frame."""
    distance = np.abs(draw_scene(scene, seed).frames.astype(float) - COLOURS[colour]).sum(-1)
    rows, columns = np.indices((32, 32))
    return np.array([[rows[near < 60].mean(), columns[near < 60].mean()] for near in distance])


@given(st.sampled_from(["left", "right"]), st.sampled_from(["Bounce", "Fall", "Rest", "Rise"]), st.integers(0, 99))
@settings(max_examples=25, deadline=None)
def test_the_first_thing_is_on_the_side_that_the_caption_says(relation: str, motion: str, seed: int) -> None:
    scene = Scene((Thing("red", "disc"), Thing("blue", "square")), motion, "moss", relation)
    red, blue = (columns_of(colour, scene, seed)[:, 1] for colour in ("red", "blue"))
    assert ((blue - red if relation == "left" else red - blue) > 6).all()


def test_things_move_as_the_caption_says() -> None:
    def path(motion: str) -> np.ndarray:
        return columns_of("red", Scene((Thing("red", "square"),), motion, "slate"), 3)

    assert all(after[0] < before[0] for before, after in pairwise(path("Rise")))
    assert all(after[0] > before[0] for before, after in pairwise(path("Fall")))
    assert all(after[1] < before[1] for before, after in pairwise(path("SlideLeft")))
    assert np.abs(np.diff(path("Rest"), axis=0)).max() < 0.5


def test_sizes_are_as_said() -> None:
    def area(size: str, seed: int) -> int:
        frame = draw_scene(Scene((Thing("red", "disc", size),), "Rest", "slate"), seed).frames[0].astype(float)
        return int((np.abs(frame - COLOURS["red"]).sum(-1) < 60).sum())

    for seed in range(9):
        assert area("small", seed) < area("", seed) < area("large", seed)
