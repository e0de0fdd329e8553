from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vdmini_bench.metrics.kernel import polynomial_mmd


@pytest.mark.parametrize(("unbiased", "name"), [(True, "mmd_poly3_unbiased"), (False, "mmd_poly3_biased")])
def test_equals_the_original(golden: Path, unbiased: bool, name: str) -> None:
    vectors = np.load(golden / "distribution_metrics.npz")
    expected = json.loads(str(vectors["expected"]))[name]
    assert polynomial_mmd(vectors["x"], vectors["y"], unbiased) == pytest.approx(expected, rel=1e-9)
    x, y = torch.from_numpy(vectors["x"]), torch.from_numpy(vectors["y"])
    assert polynomial_mmd(x, y, unbiased) == pytest.approx(expected, rel=1e-9)


def test_by_hand() -> None:
    # Kernel (xy + 1)^3 on x = {0, 1}, y = {0, 2}: within 1 and 1 off the diagonal, between (1 + 1 + 1 + 27) / 4.
    x, y = np.array([[0.0], [1.0]]), np.array([[0.0], [2.0]])
    assert polynomial_mmd(x, y) == pytest.approx(1 + 1 - 2 * 30 / 4)
    assert polynomial_mmd(x, y, unbiased=False) == pytest.approx((1 + 1 + 1 + 8 + 1 + 1 + 1 + 125) / 4 - 15)


@given(st.integers(0, 2**32 - 1), st.integers(1, 8))
@settings(max_examples=30, deadline=None)
def test_invariants(seed: int, dimension: int) -> None:
    random = np.random.default_rng(seed)
    x, y = random.normal(size=(20, dimension)), random.normal(size=(15, dimension))
    for unbiased in (True, False):
        distance = polynomial_mmd(x, y, unbiased)
        assert polynomial_mmd(y, x, unbiased) == pytest.approx(distance, abs=1e-9)
        assert polynomial_mmd(random.permutation(x), y, unbiased) == pytest.approx(distance, abs=1e-9)
    assert polynomial_mmd(x, y, unbiased=False) >= -1e-9
    assert polynomial_mmd(x, x, unbiased=False) == pytest.approx(0, abs=1e-9)


def test_refuses_bad_input() -> None:
    good = np.ones((3, 2))
    with pytest.raises(ValueError, match="2 and 4 dimensions"):
        polynomial_mmd(good, np.ones((3, 4)))
    with pytest.raises(ValueError, match="y has 1 rows"):
        polynomial_mmd(good, good[:1])
    with pytest.raises(ValueError, match="x holds NaN"):
        polynomial_mmd(good * np.nan, good)


@pytest.mark.parametrize("unbiased", [True, False])
def test_the_kernel_is_summed_in_parts(monkeypatch: pytest.MonkeyPatch, unbiased: bool) -> None:
    x, y = np.random.default_rng(0).normal(size=(23, 6)), np.random.default_rng(1).normal(size=(31, 6))
    whole = polynomial_mmd(x, y, unbiased)
    monkeypatch.setattr("vdmini_bench.metrics.kernel.ROWS_AT_ONCE", 5)
    assert polynomial_mmd(x, y, unbiased) == pytest.approx(whole, rel=1e-12)
