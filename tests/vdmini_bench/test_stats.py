from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import ttest_rel

from vdmini_bench.stats import paired_interval


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
    with pytest.raises(ValueError, match="two or more pairs"):
        paired_interval(a, b)
