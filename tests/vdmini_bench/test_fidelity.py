"""Same-seed fidelity: PSNR and SSIM against their definitions, equal clips, and what each number notices."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from vdmini_bench.data.synthetic import ACTIONS, draw_clip
from vdmini_bench.errors import NotComparableError, NothingMeasuredError, SuiteError
from vdmini_bench.metrics.fidelity import EQUAL_DB, MEASURES, clip_fidelity, fidelity_notes, fidelity_scores
from vdmini_bench.results.score import Score
from vdmini_bench.studies.corruptions import at_speed, corrupt

Clip = NDArray[np.uint8]
FRAMES = 6


@pytest.fixture(scope="module")
def footage() -> list[Clip]:
    # Every fourth frame is shown, as `corruptions` takes it.
    time = 0.5 + np.arange(-12, 13) / 12
    return [draw_clip(action, 4, 1, time).frames for action in [*ACTIONS][:3]]


@pytest.fixture(scope="module")
def clips(footage: list[Clip]) -> list[Clip]:
    return [at_speed(each, 1, FRAMES) for each in footage]


def scored(clips: list[Clip], others: list[Clip]) -> dict[str, Score]:
    pairs = ((f"{place:05d}", a, b) for place, (a, b) in enumerate(zip(clips, others, strict=True)))
    return {score.metric: score for score in fidelity_scores("6 steps, <b>odd</b>", "p@1", pairs)}


def test_psnr_is_the_mean_over_frames_of_its_definition() -> None:
    dark = np.full((2, 16, 16, 3), 100, np.uint8)
    other = dark.copy()
    other[0] += 5
    other[1] += 20
    expected = np.mean([10 * math.log10(255**2 / error**2) for error in (5, 20)])
    assert clip_fidelity(dark, other)["psnr"] == pytest.approx(expected, rel=1e-6)


def test_ssim_is_that_of_another_implementation(footage: list[Clip], clips: list[Clip]) -> None:
    """By Wang et al. 2004: a Gaussian window of 11 pixels, written out with scipy."""
    from scipy.ndimage import gaussian_filter

    noisy = corrupt(footage[0], "blur", 1, FRAMES, 0)

    def smooth(image: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(gaussian_filter(image, 1.5, radius=5, mode="mirror"))

    found = []
    for first, second in zip(clips[0] / 1.0, noisy / 1.0, strict=True):
        for a, b in zip(np.moveaxis(first, -1, 0), np.moveaxis(second, -1, 0), strict=True):
            mean, other = smooth(a), smooth(b)
            spread, far = smooth(a * a) - mean**2, smooth(b * b) - other**2
            both = smooth(a * b) - mean * other
            one, two = (0.01 * 255) ** 2, (0.03 * 255) ** 2
            ratio = (2 * mean * other + one) * (2 * both + two) / ((mean**2 + other**2 + one) * (spread + far + two))
            found.append(ratio.mean())
    assert clip_fidelity(clips[0], noisy)["ssim"] == pytest.approx(np.mean(found), abs=1e-5)


def test_equal_clips_are_said_to_be_equal_and_stay_finite(clips: list[Clip]) -> None:
    found = scored(clips, clips)
    assert [found[metric].value for metric in MEASURES] == [EQUAL_DB, pytest.approx(1), 0, 0]
    assert [found[metric].standard_error for metric in MEASURES] == pytest.approx([0, 0, 0, 0], abs=1e-6)
    assert "equal to the baseline's clips" in fidelity_notes(found.values())["psnr"]
    # One frame of one clip by one level: no longer equal, and below what equality counts.
    other = clips[0].copy()
    other[2, 0, 0, 0] ^= 1
    nearly = scored(clips, [other, *clips[1:]])
    assert EQUAL_DB - 2 < (nearly["psnr"].value or 0) < EQUAL_DB
    assert fidelity_notes(nearly.values()) == {}


def test_scores_are_means_over_clips_with_their_errors(footage: list[Clip], clips: list[Clip]) -> None:
    others = [corrupt(each, "blur", strength, FRAMES, 0) for each, strength in zip(footage, (1, 2, 3), strict=True)]
    single = [clip_fidelity(a, b) for a, b in zip(clips, others, strict=True)]
    for metric, score in scored(clips, others).items():
        values = [each[metric] for each in single]
        assert score.blocks == tuple(values)
        assert score.value == pytest.approx(np.mean(values))
        assert score.standard_error == pytest.approx(np.std(values, ddof=1) / math.sqrt(3))
        assert (score.model, score.n, score.n_expected, score.status) == ("6 steps, <b>odd</b>", 3, 3, "ok")
    (alone,) = (score for score in fidelity_scores("a", "p", [("1", clips[0], others[0])]) if score.metric == "psnr")
    assert alone.standard_error is None


def test_each_number_notices_its_own(footage: list[Clip], clips: list[Clip]) -> None:
    still = scored(clips, [np.repeat(clip[:1], len(clip), axis=0) for clip in clips])
    recoloured = scored(clips, [corrupt(each, "recolour", 60, FRAMES, 0) for each in footage])
    for metric, more in (("motion_distance", still), ("content_distance", recoloured)):
        less = recoloured if more is still else still
        assert (more[metric].value or 0) > 2 * (less[metric].value or 0), metric


def test_what_does_not_pair_is_named(clips: list[Clip]) -> None:
    with pytest.raises(
        NotComparableError, match=r"clip 00001 of the baseline and that of 6 steps.* do not pair: 6 frames"
    ):
        scored(clips, [clips[0], clips[1][:-1], clips[2]])
    with pytest.raises(SuiteError, match="clip 00000 of the baseline: motion needs 2 or more frames"):
        scored([clips[0][:1]], [clips[0][:1]])
    with pytest.raises(NothingMeasuredError, match="has no clips"):
        scored([], [])
