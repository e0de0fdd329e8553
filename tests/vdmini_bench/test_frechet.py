from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.linalg import sqrtm

from vdmini_bench.metrics.frechet import Moments, frechet_distance, frechet_distance_of_moments

seeds = st.integers(0, 2**32 - 1)
dimensions = st.integers(1, 8)


def draw(seed: int, count: int, dimension: int) -> NDArray[np.float64]:
    random = np.random.default_rng(seed)
    mixing = random.normal(size=(dimension, dimension))
    return random.normal(size=(count, dimension)) @ mixing + random.normal(size=dimension)


@pytest.mark.parametrize("ddof", [0, 1])
def test_equals_the_original(golden: Path, ddof: int) -> None:
    vectors = np.load(golden / "distribution_metrics.npz")
    expected = json.loads(str(vectors["expected"]))[f"frechet_ddof{ddof}"]
    assert frechet_distance(vectors["x"], vectors["y"], ddof) == pytest.approx(expected, rel=1e-9)
    as_tensors = frechet_distance(torch.from_numpy(vectors["x"]), torch.from_numpy(vectors["y"]), ddof)
    assert as_tensors == pytest.approx(expected, rel=1e-9)


def test_one_dimension_by_hand() -> None:
    # Means 1 and 5, standard deviations 1 and 3: (1 - 5)^2 + (1 - 3)^2.
    x, y = np.array([[0.0], [2.0]]), np.array([[2.0], [8.0]])
    assert frechet_distance(x, y, ddof=0) == pytest.approx(20.0)
    assert frechet_distance(x, y) == pytest.approx(16.0 + 2 * (3 - 1) ** 2)


@given(seeds, dimensions)
@settings(max_examples=30, deadline=None)
def test_equals_scipy(seed: int, dimension: int) -> None:
    x, y = draw(seed, 40, dimension), draw(seed + 1, 50, dimension)
    first, second = np.atleast_2d(np.cov(x.T)), np.atleast_2d(np.cov(y.T))
    root = np.real(sqrtm(first @ second))
    offset = x.mean(axis=0) - y.mean(axis=0)
    expected = offset @ offset + np.trace(first + second - 2 * root)
    assert frechet_distance(x, y) == pytest.approx(float(expected), rel=1e-6, abs=1e-6)


@given(seeds, dimensions, st.floats(-100, 100))
@settings(max_examples=30, deadline=None)
def test_invariants(seed: int, dimension: int, shift: float) -> None:
    x, y = draw(seed, 30, dimension), draw(seed + 1, 20, dimension)
    distance = frechet_distance(x, y)
    assert distance >= 0
    assert frechet_distance(y, x) == pytest.approx(distance, rel=1e-6, abs=1e-6)
    assert frechet_distance(x, x) == pytest.approx(0, abs=1e-6)
    assert frechet_distance(x + shift, y + shift) == pytest.approx(distance, rel=1e-5, abs=1e-5)
    assert frechet_distance(x, x + shift) == pytest.approx(dimension * shift**2, rel=1e-6, abs=1e-5)


def test_fewer_samples_than_dimensions_stays_finite() -> None:
    x, y = draw(0, 5, 40), draw(1, 6, 40)
    assert np.isfinite(frechet_distance(x, y))
    assert frechet_distance(x, x) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_refuses_values_that_are_not_finite(value: float) -> None:
    good = draw(0, 4, 2)
    bad = good.copy()
    bad[1, 0] = value
    with pytest.raises(ValueError, match="NaN or infinity in 1 of 4 rows"):
        frechet_distance(good, bad)


def test_refuses_bad_shapes() -> None:
    good = draw(0, 4, 2)
    with pytest.raises(ValueError, match="1 rows: at least 2"):
        frechet_distance(good, good[:1])
    with pytest.raises(ValueError, match="2 and 3 dimensions"):
        frechet_distance(good, draw(0, 4, 3))
    with pytest.raises(ValueError, match="N x D"):
        frechet_distance(good, good[0])
    with pytest.raises(ValueError, match="ddof is 2"):
        frechet_distance(good, good, ddof=2)
    with pytest.raises(ValueError, match="not comparable"):
        frechet_distance_of_moments(Moments.of(good, ddof=0), Moments.of(good, ddof=1))


def test_moments_survive_a_file(tmp_path: Path) -> None:
    x, y = draw(0, 30, 5), draw(1, 30, 5)
    Moments.of(x).save(tmp_path / "x.npz")
    loaded = Moments.load(tmp_path / "x.npz")
    assert (loaded.count, loaded.ddof) == (30, 1)
    assert frechet_distance_of_moments(loaded, Moments.of(y)) == frechet_distance(x, y)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut", b"not an archive"])
def test_refuses_a_damaged_file(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "moments.npz"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"moments\.npz"):
        Moments.load(path)


def test_refuses_pickled_objects(tmp_path: Path) -> None:
    path = tmp_path / "moments.npz"
    objects = np.array([{"a": 1}], dtype=object)
    np.savez(path, count=np.asarray(3), mean=objects, covariance=objects, ddof=np.asarray(1))
    with pytest.raises(ValueError, match=r"moments\.npz"):
        Moments.load(path)


def test_few_rows_give_what_their_covariance_gives() -> None:
    """From the rows themselves or from moments that were kept without them: by two ways to the same number."""
    random = np.random.default_rng(5)
    few, others, many = (random.normal(1.0, 2.0, size=(count, 60)) for count in (11, 17, 200))

    def kept(rows: np.ndarray[Any, Any]) -> Moments:
        return replace(Moments.of(rows), spread=None)

    for x, y in ((few, others), (few, many), (many, few)):
        expected = frechet_distance_of_moments(kept(x), kept(y))
        assert frechet_distance(x, y) == pytest.approx(expected, rel=1e-6)
    assert Moments.of(many).spread is None
