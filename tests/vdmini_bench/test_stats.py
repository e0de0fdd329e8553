from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ttest_rel

from vdmini_bench.results.stats import median_difference_interval, paired_interval


@given(st.integers(0, 2**32 - 1), st.integers(2, 12), st.sampled_from([0.5, 0.9, 0.95, 0.99]))
def test_equals_scipy(seed: int, n: int, level: float) -> None:
    random = np.random.default_rng(seed)
    a, b = random.normal(size=n), random.normal(1, 2, size=n)
    expected = ttest_rel(b, a).confidence_interval(level)
    mean, low, high = paired_interval(a.tolist(), b.tolist(), level)
    assert (low, high) == pytest.approx((expected.low, expected.high), rel=1e-9, abs=1e-12)
    assert mean == pytest.approx((b - a).mean(), abs=1e-12)


def test_swapping_the_sides_mirrors_the_interval() -> None:
    a, b = [1.0, 2.0, 4.0], [2.0, 2.5, 6.0]
    mean, low, high = paired_interval(a, b)
    assert paired_interval(b, a) == pytest.approx((-mean, -high, -low))
    assert paired_interval(a, a) == (0, 0, 0)


@pytest.mark.parametrize(("a", "b"), [([], []), ([1.0], [2.0]), ([1.0, 2.0], [1.0, 2.0, 3.0])])
def test_refuses_what_does_not_pair(a: list[float], b: list[float]) -> None:
    for interval in (paired_interval, median_difference_interval):
        with pytest.raises(ValueError, match="two or more pairs"):
            interval(a, b)


@given(st.integers(0, 2**32 - 1), st.integers(2, 12), st.floats(-9, 9))
@settings(deadline=None, max_examples=30)
def test_a_constant_difference_of_medians_is_certain(seed: int, n: int, shift: float) -> None:
    a = np.random.default_rng(seed).normal(size=n)
    assert median_difference_interval(a.tolist(), (a + shift).tolist()) == pytest.approx((shift, shift), abs=1e-9)


def test_an_outlier_does_not_hide_a_difference_of_medians() -> None:
    a = [10.0, 10.2, 9.9, 10.1, 10.0, 9.8, 10.1, 10.0, 9.9, 300.0]
    b = [value / 2 for value in a[:-1]] + [5.0]
    low, high = median_difference_interval(a, b)
    assert low <= np.median(b) - np.median(a) <= high < -4
    assert median_difference_interval(a, b) == (low, high)
    _, low, high = paired_interval(a, b)
    assert low < 0 < high
