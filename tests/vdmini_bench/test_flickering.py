"""Temporal flickering against the official formula, written with OpenCV as the official code has it."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from vdmini_bench.data.captions import choose_scenes, draw_scenes
from vdmini_bench.data.video import read_frames, write_video
from vdmini_bench.vbench.native.flickering import temporal_flickering


def official(frames: NDArray[np.uint8]) -> float:
    """What the official package computes of a video's frames: float32 throughout."""
    means = [
        np.mean(cv2.absdiff(np.array(first, dtype=np.float32), np.array(second, dtype=np.float32)))
        for first, second in pairwise(frames)
    ]
    return float((255.0 - np.mean(np.array(means)).item()) / 255.0)


def decoded_by_opencv(path: Path) -> NDArray[np.uint8]:
    """All frames T H W C BGR uint8, as the official package reads them."""
    capture, frames = cv2.VideoCapture(str(path)), []
    while True:
        there, frame = capture.read()
        if not there:
            capture.release()
            return np.asarray(np.stack(frames), dtype=np.uint8)
        frames.append(frame)


@given(arrays(np.uint8, st.tuples(st.integers(2, 5), st.integers(1, 6), st.integers(1, 6), st.just(3))))
def test_it_equals_the_official_formula(frames: NDArray[np.uint8]) -> None:
    found = temporal_flickering(frames)
    assert found == pytest.approx(official(frames), abs=1e-7)
    assert 0.0 <= found <= 1.0
    assert temporal_flickering(frames[::-1]) == pytest.approx(found, abs=1e-12)


def test_it_equals_the_official_formula_on_files(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (6, 66, 130, 3), dtype=np.uint8)
    for place, clip in enumerate([*draw_scenes(choose_scenes(3, "any"), 0), noise]):
        path = tmp_path / f"a clip, {place}.mp4"
        write_video(path, clip, 7)
        assert temporal_flickering(read_frames(path, len(clip))) == pytest.approx(
            official(decoded_by_opencv(path)), abs=1e-7
        )


def test_a_still_clip_has_one_and_the_strongest_flicker_zero() -> None:
    still = np.full((4, 3, 5, 3), 200, dtype=np.uint8)
    assert temporal_flickering(still) == 1.0
    still[1::2] = 0
    still[::2] = 255
    assert temporal_flickering(still) == 0.0
    # A fifth of the range, in one of two differences.
    assert temporal_flickering(np.array([0, 0, 51], np.uint8).reshape(3, 1, 1, 1)) == pytest.approx(0.9)


@pytest.mark.parametrize(
    "frames", [np.zeros((1, 2, 2, 3), np.uint8), np.zeros((4, 2, 2, 3), np.float32), np.zeros((4, 2, 3), np.uint8)]
)
def test_what_is_no_clip_is_refused(frames: NDArray[np.uint8]) -> None:
    with pytest.raises(ValueError, match="two or more, T H W C uint8"):
        temporal_flickering(frames)
