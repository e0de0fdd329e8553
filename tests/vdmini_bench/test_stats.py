from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ttest_rel

from vdmini_bench.results.stats import (
    mean_interval,
    median_difference_interval,
    median_ratio_interval,
    paired_interval,
    welch_interval,
)

# Of samples by seed and sizes: the mean's, Welch's, the paired difference and ratio of medians, and the unpaired ones.
KEPT = {
    (0, 5, 7): (
        (209.31904606899215, 99.4917531897715, 319.1463389482128), (-199.81463882379683, 16.795056180832503),
        (-216.93613651764343, 79.19904738982929), (0.13824924642059358, 1.6393577713422829),
        (-221.75675308995454, 17.489729630005883), (0.34520609424730087, 0.9460065817780805),
    ),
    (1, 12, 4): (
        (195.99541902480902, 154.11778727767216, 237.87305077194588), (-172.02971341371358, 36.7644703208809),
        (-194.156714317174, 18.0813316438977), (0.11121115131254568, 1.1323867977994646),
        (-161.7781351728404, 15.90135009538426), (0.3998332755163826, 1.0670795705718046),
    ),
    (2, 2, 2): (
        (174.2985402110412, -178.13978065478756, 526.7368610768699), (-1134.7468970028083, 1298.4029495477837),
        (-8.043716131871719, 171.69976867684704), (0.9451169561997321, 1.8498472386656146),
        (-63.518710936958286, 227.1747634819336), (0.6856070249286683, 2.5500351193513855),
    ),
    (3, 30, 30): (
        (200.54098605582507, 164.39115860034303, 236.6908135113071), (-74.75799455881345, 23.90145403826962),
        (-86.25446477884812, 31.582613413026763), (0.58636061127118, 1.192164929130344),
        (-83.76087796152225, 30.837115245682867), (0.6263969053589344, 1.1320724985920416),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", KEPT)
def test_intervals_stay_what_they_were_to_thirteen_digits(case: tuple[int, int, int]) -> None:
    seed, n, m = case
    random = np.random.default_rng(seed)
    a, b = random.gamma(4, 50, n).tolist(), random.gamma(4, 45, m).tolist()
    pairs = a[: min(n, m)], b[: min(n, m)]
    found = (
        mean_interval(a), welch_interval(a, b), median_difference_interval(*pairs), median_ratio_interval(*pairs),
        median_difference_interval(a, b, paired=False), median_ratio_interval(a, b, 0.9, paired=False),
    )  # fmt: skip
    for one, other in zip(found, KEPT[case], strict=True):
        assert one == pytest.approx(other, rel=1e-13, abs=0)


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
