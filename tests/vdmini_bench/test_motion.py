from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from vdmini_bench.data.synthetic import ACTIONS, draw_clip
from vdmini_bench.metrics.flow import end_point_distance, flow_fields
from vdmini_bench.metrics.frechet import frechet_distance
from vdmini_bench.metrics.motion import dynamic_degree, flicker, magnitude_distance, speed_difference
from vdmini_bench.metrics.motion_statistics import STATISTICS, fields_to_statistics, motion_statistics
from vdmini_bench.studies.corruptions import at_speed, freeze, jitter, recolour, shuffle

Fields = NDArray[np.float32]


def random_fields(seed: int, scale: float = 2.0) -> Fields:
    return np.random.default_rng(seed).normal(scale=scale, size=(4, 12, 16, 2)).astype(np.float32)


def uniform(*velocities: tuple[float, float]) -> Fields:
    return np.stack([np.broadcast_to(np.float32(velocity), (16, 16, 2)) for velocity in velocities])


def named(fields: Fields) -> dict[str, float]:
    return dict(zip(STATISTICS, fields_to_statistics(fields), strict=True))


@given(st.integers(0, 2**32 - 1), st.floats(0, 8))
@settings(max_examples=30, deadline=None)
def test_pair_distance_invariants(seed: int, factor: float) -> None:
    a, b = random_fields(seed), random_fields(seed + 1, factor)
    assert magnitude_distance(a, a) == end_point_distance(a, a) == speed_difference(a, a) == 0
    assert magnitude_distance(a, b) == pytest.approx(magnitude_distance(b, a))
    assert end_point_distance(a, b) == pytest.approx(end_point_distance(b, a))
    assert speed_difference(a, b) == pytest.approx(-speed_difference(b, a))
    # The amount of motion cannot be further apart than the motion.
    assert magnitude_distance(a, b) <= end_point_distance(a, b) + 1e-6
    # What turned or went elsewhere is the same amount.
    assert magnitude_distance(a, -a[:, ::-1]) == pytest.approx(0, abs=1e-6)
    assert end_point_distance(a, -a) == pytest.approx(2 * np.hypot(a[..., 0], a[..., 1]).mean(), rel=1e-5)


def test_speeds_are_pixels_a_frame() -> None:
    slow, fast = uniform(*[(3.0, 0.0)] * 4), uniform(*[(0.0, 5.0)] * 4)
    assert magnitude_distance(slow, fast) == pytest.approx(2)
    assert speed_difference(slow, fast) == pytest.approx(2)
    assert end_point_distance(slow, fast) == pytest.approx(np.hypot(3, 5))


def test_dynamic_degree_decides_as_vbench_does() -> None:
    # At 16 pixels the threshold is 6 * 16 / 256; five frames need round(5 / 4) = 1 fast pair.
    threshold = 0.375
    still, fast = (0.0, 0.0), (threshold + 0.01, 0.0)
    assert dynamic_degree(uniform(still, still, still, fast)) == 1
    assert dynamic_degree(uniform(*[(threshold - 0.01, 0.0)] * 4)) == 0
    # Nine frames need two.
    assert dynamic_degree(uniform(*[still] * 7, fast)) == 0
    assert dynamic_degree(uniform(*[still] * 6, fast, fast)) == 1


def test_flicker_is_the_complement_of_temporal_flickering() -> None:
    clip = np.zeros((3, 12, 12, 3), np.uint8)
    clip[1] = 51
    assert flicker(clip) == pytest.approx(0.2)
    assert flicker(255 - clip) == pytest.approx(0.2)
    assert flicker(clip[:1].repeat(3, axis=0)) == 0
    with pytest.raises(ValueError, match="T >= 2"):
        flicker(clip[:1])


def test_unlike_fields_are_refused() -> None:
    for measure in (magnitude_distance, speed_difference):
        with pytest.raises(ValueError, match="do not pair"):
            measure(random_fields(0), random_fields(0)[:3])


def test_a_still_clip_has_no_statistics_and_a_steady_one_those_of_its_speed() -> None:
    assert (motion_statistics(np.full((5, 16, 16, 3), 90, np.uint8)) == 0).all()
    steady = named(uniform(*[(0.3, 0.4)] * 4))
    for name in ("median_speed", "fast_speed", "top_speed"):
        assert steady[name] == pytest.approx(np.log1p(0.5 / 0.1))
    assert steady["persistence_1"] == steady["persistence_2"] == pytest.approx(0.25 / 0.26)
    assert (steady["direction_x"], steady["direction_y"]) == pytest.approx((0.3 / 0.26**0.5, 0.4 / 0.26**0.5))
    for name in ("unevenness", "divergence", "rotation", "acceleration"):
        assert steady[name] == pytest.approx(0, abs=1e-6)


def test_statistics_name_what_they_say() -> None:
    back_and_forth = named(uniform(*[(1.0, 0.0), (-1.0, 0.0)] * 3))
    assert back_and_forth["persistence_1"] < -0.9
    assert back_and_forth["persistence_2"] > 0.9
    assert back_and_forth["acceleration"] == pytest.approx(np.log1p(2 / 0.1))
    stop = named(uniform((1.0, 0.0), (1.0, 0.0), (0.0, 0.0), (0.0, 0.0)))
    assert stop["unevenness"] > 1
    y, x = np.mgrid[-8:8, -8:8].astype(np.float32) / 10
    growth, spin = (np.stack([np.stack(field, -1)] * 4) for field in ((x, y), (-y, x)))
    assert named(growth)["divergence"] == pytest.approx(np.log1p(0.2 / 0.1), rel=1e-4)
    assert named(growth)["rotation"] == pytest.approx(0, abs=1e-4)
    assert named(spin)["rotation"] == pytest.approx(np.log1p(0.2 / 0.1), rel=1e-4)
    assert named(spin)["divergence"] == pytest.approx(0, abs=1e-4)


@given(st.integers(0, 2**32 - 1), st.floats(0.01, 30))
@settings(max_examples=30, deadline=None)
def test_statistics_do_not_depend_on_which_way_is_right(seed: int, scale: float) -> None:
    fields = random_fields(seed, scale) + np.float32([1.0, -0.5])
    turned = np.rot90(fields, axes=(1, 2))[..., ::-1] * np.float32([1, -1])
    there, here = named(turned), named(fields)
    for name in STATISTICS:
        if not name.startswith("direction"):
            assert there[name] == pytest.approx(here[name], rel=1e-3, abs=1e-3), name
    assert np.hypot(there["direction_x"], there["direction_y"]) == pytest.approx(
        np.hypot(here["direction_x"], here["direction_y"]), abs=1e-4
    )


def test_short_clips_are_refused() -> None:
    with pytest.raises(ValueError, match="4 or more frames"):
        fields_to_statistics(random_fields(0)[:2])


@pytest.fixture(scope="module")
def drawn() -> list[NDArray[np.uint8]]:
    """Footage of four frames a frame, three clips of each action."""
    time = 0.5 + np.arange(-36, 37) / 36
    return [draw_clip(action, group, 1, time).frames for group in (1, 2, 3) for action in ACTIONS]


def test_the_frechet_motion_distance_sees_half_the_speed_and_no_colour(drawn: list[NDArray[np.uint8]]) -> None:
    random = np.random.default_rng(0)

    def statistics(clips: list[NDArray[np.uint8]]) -> NDArray[np.float64]:
        return np.stack([motion_statistics(clip) for clip in clips])

    whole = [at_speed(footage, 1, 10) for footage in drawn]
    others = statistics([draw_clip(action, group, 1).frames for group in range(8, 16) for action in ACTIONS])
    floor = frechet_distance(statistics(whole), others)
    half = frechet_distance(statistics([at_speed(footage, 0.5, 10) for footage in drawn]), others)
    assert half > 5 * floor
    recoloured = frechet_distance(statistics([recolour(clip, 120, random) for clip in whole]), others)
    assert recoloured == pytest.approx(floor, abs=0.1 * half)
    for corruption, mild, severe in ((shuffle, 0.2, 1.0), (freeze, 0.25, 0.5), (jitter, 0.5, 1.0)):
        little, much = (
            frechet_distance(statistics([corruption(clip, strength, random) for clip in whole]), others)
            for strength in (mild, severe)
        )
        assert floor < little < much, corruption.__name__


def test_mirrored_clips_move_the_other_way() -> None:
    right = [draw_clip("SlideRight", group, 1).frames for group in range(1, 13)]
    there = np.stack([motion_statistics(clip) for clip in right])
    back = np.stack([motion_statistics(clip[:, :, ::-1]) for clip in right])
    # Nothing but the direction differs.
    assert frechet_distance(there, back) == pytest.approx(frechet_distance(there[:, [6]], back[:, [6]]), rel=0.3)
    assert frechet_distance(there, back) > 0.2


def test_fields_have_one_entry_for_each_pair_of_frames(drawn: list[NDArray[np.uint8]]) -> None:
    fields = flow_fields(drawn[0][:4])
    assert fields.shape == (3, 32, 32, 2)
    assert fields.dtype == np.float32
