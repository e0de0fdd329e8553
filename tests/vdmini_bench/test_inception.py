from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vdmini_bench.metrics.inception import inception_score


@pytest.mark.parametrize("splits", [1, 10])
def test_equals_the_original(golden: Path, splits: int) -> None:
    vectors = np.load(golden / "distribution_metrics.npz")
    expected = json.loads(str(vectors["expected"]))[f"inception_score_splits{splits}"]
    assert inception_score(vectors["logits"], splits) == pytest.approx(expected, rel=1e-9)
    assert inception_score(torch.from_numpy(vectors["logits"]), splits) == pytest.approx(expected, rel=1e-9)


def test_certain_and_varied_samples_score_the_number_of_classes() -> None:
    # The probabilities of the other classes underflow to 0: 0 * log 0 must count as 0.
    mean, deviation = inception_score(np.eye(7) * 1e6, splits=1)
    assert mean == pytest.approx(7)
    assert deviation == 0


def test_same_samples_score_one() -> None:
    assert inception_score(np.tile([1e5, -1e5, 3.0], (8, 1)), splits=2) == pytest.approx((1.0, 0.0))


@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.floats(-1e4, 1e4), st.floats(0.01, 1e4))
@settings(max_examples=40, deadline=None)
def test_invariants(seed: int, splits: int, shift: float, scale: float) -> None:
    logits = np.random.default_rng(seed).normal(size=(13, 5)) * scale
    mean, deviation = inception_score(logits, splits)
    assert 1 - 1e-9 <= mean <= 5 + 1e-9
    assert math.isfinite(deviation)
    assert inception_score(logits + shift, splits) == pytest.approx((mean, deviation), abs=1e-6)
    shuffled = np.random.default_rng(0).permutation(logits)
    assert inception_score(shuffled, 1) == pytest.approx(inception_score(logits, 1))


def test_uneven_splits_use_every_sample() -> None:
    logits = np.random.default_rng(0).normal(size=(7, 4))
    halves = [inception_score(part, 1)[0] for part in (logits[:3], logits[3:])]
    assert inception_score(logits, 2) == pytest.approx((np.mean(halves), np.std(halves)))


@pytest.mark.parametrize("splits", [0, -1, 4])
def test_refuses_impossible_splits(splits: int) -> None:
    with pytest.raises(ValueError, match=r"1\.\.3"):
        inception_score(np.zeros((3, 2)), splits)


def test_refuses_values_that_are_not_finite() -> None:
    with pytest.raises(ValueError, match="logits holds NaN or infinity in 3 of 3 rows"):
        inception_score(np.full((3, 2), np.nan), 1)
