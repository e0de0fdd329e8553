from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from vdmini_bench.metrics.flow import FLOW_VERSION, flow_distance, flow_magnitudes


def sliding_clip(pixels_per_frame: int, frames: int = 5, size: int = 80) -> NDArray[np.uint8]:
    random = np.random.default_rng(0)
    noise = random.uniform(size=(size, size + pixels_per_frame * frames)).astype(np.float32)
    wide = cv2.GaussianBlur(noise, (0, 0), 3)
    wide = (wide - wide.min()) / (wide.max() - wide.min())
    views = [wide[:, pixels_per_frame * number :][:, :size] for number in range(frames)]
    return np.repeat((np.stack(views) * 255).astype(np.uint8)[..., None], 3, axis=3)


def test_known_shift_is_measured() -> None:
    for shift in (1, 2, 4):
        magnitudes = flow_magnitudes(sliding_clip(shift))
        assert magnitudes.shape == (4, 2)
        assert magnitudes.dtype == np.float64
        assert magnitudes == pytest.approx(shift, rel=0.15)


def test_still_clip_has_no_flow() -> None:
    assert (flow_magnitudes(sliding_clip(0)) == 0).all()


def test_top_share_sees_a_small_moving_subject() -> None:
    moving, still = sliding_clip(2), sliding_clip(0)
    clip = still.copy()
    clip[:, 20:44, 20:44] = moving[:, 20:44, 20:44]
    mean, top = flow_magnitudes(clip).mean(axis=0)
    assert top > 1.5
    assert mean < 0.5


def test_repeats_and_does_not_depend_on_neighbours() -> None:
    clip = sliding_clip(3)
    whole = flow_magnitudes(clip)
    assert (flow_magnitudes(clip) == whole).all()
    assert (flow_magnitudes(clip[2:4]) == whole[2:3]).all()


def test_gives_opencv_its_threads_back() -> None:
    before = cv2.getNumThreads()
    try:
        cv2.setNumThreads(2)
        flow_magnitudes(sliding_clip(1, frames=2))
        assert cv2.getNumThreads() == 2
    finally:
        cv2.setNumThreads(before)


def test_still_clips_are_as_far_as_the_reference_moves() -> None:
    reference, still = flow_magnitudes(sliding_clip(3)), flow_magnitudes(sliding_clip(0))
    slower = flow_magnitudes(sliding_clip(2))
    assert flow_distance(still, reference) == pytest.approx(reference[:, 1].mean())
    assert 0 < flow_distance(slower, reference) < flow_distance(still, reference)
    assert FLOW_VERSION


@given(st.integers(0, 2**32 - 1), st.integers(1, 9), st.integers(1, 9), st.floats(0, 50))
@settings(max_examples=30, deadline=None)
def test_distance_invariants(seed: int, first: int, second: int, shift: float) -> None:
    random = np.random.default_rng(seed)
    x, y = random.uniform(0, 9, (first, 2)), random.uniform(0, 9, (second, 2))
    assert flow_distance(x, x) == 0
    assert flow_distance(x, y) == pytest.approx(flow_distance(y, x))
    assert flow_distance(x, x + shift) == pytest.approx(shift, abs=1e-9)
    # Only the second column, the top share, counts.
    assert flow_distance(x * [5, 1], y) == flow_distance(x, y)


def test_refuses_bad_clips() -> None:
    with pytest.raises(ValueError, match="1 frame"):
        flow_magnitudes(sliding_clip(1)[:1])
    with pytest.raises(ValueError, match="T H W 3"):
        flow_magnitudes(sliding_clip(1).transpose(0, 3, 1, 2))
    with pytest.raises(ValueError, match="float64"):
        flow_magnitudes(sliding_clip(1).astype(np.float64))
    with pytest.raises(ValueError, match="at least 12"):
        flow_magnitudes(sliding_clip(1)[:, :8])


def test_refuses_bad_magnitudes() -> None:
    good = np.ones((2, 2))
    with pytest.raises(ValueError, match="generated has shape"):
        flow_distance(good[:0], good)
    with pytest.raises(ValueError, match="reference has shape"):
        flow_distance(good, good[0])
    with pytest.raises(ValueError, match="NaN"):
        flow_distance(good, good * np.nan)
