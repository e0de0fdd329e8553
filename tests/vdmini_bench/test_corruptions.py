from __future__ import annotations

import cv2
import numpy as np
import pytest

from vdmini_bench.data.synthetic import draw_clip
from vdmini_bench.studies.corruptions import (
    CORRUPTIONS,
    OVERSAMPLING,
    Clip,
    at_speed,
    blur,
    corrupt,
    footage_frames,
    freeze,
)

FRAMES = 10
GRADES = [(kind.name, severity) for kind in CORRUPTIONS for severity in kind.severities]


@pytest.fixture(scope="module")
def footage() -> Clip:
    length = footage_frames(FRAMES)
    time = 0.5 + (np.arange(length) - (length - 1) / 2) / (OVERSAMPLING * (FRAMES - 1))
    return draw_clip("Orbit", 3, 1, time).frames


@pytest.mark.parametrize(("kind", "severity"), GRADES)
def test_harm_keeps_shape_and_repeats_and_changes_something(footage: Clip, kind: str, severity: float) -> None:
    before = footage.copy()
    corrupted = corrupt(footage, kind, severity, FRAMES, seed=5)
    assert corrupted.shape == (FRAMES, 32, 32, 3)
    assert corrupted.dtype == np.uint8
    assert (corrupted == corrupt(footage, kind, severity, FRAMES, seed=5)).all()
    assert (footage == before).all()
    assert (corrupted != at_speed(footage, 1, FRAMES)).any()


def test_the_clip_itself_is_the_middle_of_its_footage(footage: Clip) -> None:
    assert (at_speed(footage, 1, FRAMES) == draw_clip("Orbit", 3, 1).frames).all()


def test_speeds_take_other_frames_of_one_middle() -> None:
    footage = np.arange(73, dtype=np.uint8).reshape(73, 1, 1, 1)
    assert at_speed(footage, 1, 10).ravel().tolist() == list(range(18, 55, 4))
    assert at_speed(footage, 0.5, 10).ravel().tolist() == list(range(27, 46, 2))
    assert at_speed(footage, 2, 10).ravel().tolist() == list(range(0, 73, 8))
    with pytest.raises(ValueError, match="no multiple of 1/4"):
        at_speed(footage, 0.9, 10)
    with pytest.raises(ValueError, match="give a longer one"):
        at_speed(footage[:60], 2, 10)


@pytest.mark.parametrize("kind", ["shuffle", "freeze"])
def test_order_alone_is_harmed(footage: Clip, kind: str) -> None:
    frames = {frame.tobytes() for frame in at_speed(footage, 1, FRAMES)}
    for severity in next(each.severities for each in CORRUPTIONS if each.name == kind):
        found = [frame.tobytes() for frame in corrupt(footage, kind, severity, FRAMES, seed=1)]
        assert {*found} <= frames
        assert (len({*found}) == FRAMES) == (kind == "shuffle")


def test_a_share_of_the_clip_stands_still(footage: Clip) -> None:
    random = np.random.default_rng(0)
    clip = at_speed(footage, 1, FRAMES)
    half = freeze(clip[:9], 0.5, random)
    assert (half[:5] == clip[:5]).all()
    assert (half[4:] == clip[4]).all()
    assert (freeze(clip, 1, random) == clip[0]).all()


def test_grades_of_one_clip_share_their_noise(footage: Clip) -> None:
    clip = at_speed(footage, 1, FRAMES).astype(int)
    mild, severe = (corrupt(footage, "noise", strength, FRAMES, 2).astype(int) - clip for strength in (4, 8))
    assert np.corrcoef(mild.ravel(), severe.ravel())[0, 1] > 0.95
    assert mild.std() == pytest.approx(4, rel=0.05)
    other = corrupt(footage, "noise", 4, FRAMES, 3).astype(int) - clip
    assert abs(np.corrcoef(mild.ravel(), other.ravel())[0, 1]) < 0.05


def test_recolouring_keeps_the_brightness_that_flow_is_measured_in(footage: Clip) -> None:
    clip = at_speed(footage, 1, FRAMES)
    turned = corrupt(footage, "recolour", 60, FRAMES, 0)
    grey = [
        np.stack([cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in each]).astype(int) for each in (clip, turned)
    ]
    unclipped = (turned.min(axis=-1) > 0) & (turned.max(axis=-1) < 255)
    assert np.abs(grey[0] - grey[1])[unclipped].max() <= 2
    assert np.abs(clip.astype(int) - turned).mean() > 8


def test_blur_removes_detail_and_keeps_the_mean(footage: Clip) -> None:
    clip = at_speed(footage, 1, FRAMES)
    blurred = blur(clip, 2, np.random.default_rng(0))
    assert blurred.std() < clip.std()
    assert blurred.mean() == pytest.approx(clip.mean(), abs=1)


def test_an_unknown_harm_is_named(footage: Clip) -> None:
    with pytest.raises(ValueError, match="no corruption 'rust': take slower"):
        corrupt(footage, "rust", 1, FRAMES, 0)
