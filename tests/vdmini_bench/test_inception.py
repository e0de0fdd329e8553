from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from vdmini_bench.metrics.inception import inception_score, inception_score_stylegan_v, inception_score_tgan_v2


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


def probabilities(count: int = 40) -> NDArray[np.float64]:
    return np.random.default_rng(3).dirichlet(np.full(7, 0.5), size=count)


def test_tgan_v2_adds_an_epsilon_to_every_probability() -> None:
    rows = probabilities()
    rows[0] = np.eye(7)[2]
    # As published: exp of the mean over samples of sum p (log p - log mean p), with 1e-20 added to p throughout.
    p = rows + 1e-20
    expected = np.exp(np.mean(np.sum(p * (np.log(p) - np.log(np.mean(p, 0)[None])), 1)))
    assert inception_score_tgan_v2(rows) == pytest.approx(expected, rel=1e-12)
    assert inception_score_tgan_v2(torch.from_numpy(rows)) == inception_score_tgan_v2(rows)
    # Without a probability of 0 it is the plain score of one split.
    rows = probabilities()
    assert inception_score_tgan_v2(rows) == pytest.approx(inception_score(np.log(rows), 1)[0], rel=1e-12)


def test_stylegan_v_shuffles_by_seed_42_before_it_splits() -> None:
    rows = probabilities()
    order = np.arange(len(rows))
    np.random.RandomState(42).shuffle(order)
    assert inception_score_stylegan_v(rows) == pytest.approx(inception_score(np.log(rows[order]), 10), rel=1e-12)
    assert inception_score_stylegan_v(rows)[0] != pytest.approx(inception_score(np.log(rows), 10)[0], rel=1e-6)


def test_stylegan_v_has_no_score_where_a_probability_is_0() -> None:
    rows = probabilities()
    rows[0] = np.eye(7)[2]
    mean, deviation = inception_score_stylegan_v(rows)
    assert math.isnan(mean)
    assert math.isnan(deviation)


def test_the_samples_are_not_shuffled_in_place() -> None:
    rows = probabilities()
    before = rows.copy()
    inception_score_stylegan_v(rows)
    assert (rows == before).all()


def test_published_scores_refuse_what_they_cannot_split() -> None:
    with pytest.raises(ValueError, match=r"1\.\.5"):
        inception_score_stylegan_v(probabilities(5))
    with pytest.raises(ValueError, match="one row a sample"):
        inception_score_tgan_v2(np.zeros(3))
