"""Small-sample statistics: numbers in, intervals out."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

# Standard errors from 0 that no interval of a sample misses.
CERTAIN = 30.0


def paired_interval(a: Sequence[float], b: Sequence[float], level: float = 0.95) -> tuple[float, float, float]:
    """The mean of b - a over pairs with its Student-t interval: (mean, low, high).

    Raises:
        ValueError: unlike or fewer than two pairs.
    """
    _check_pairs(a, b)
    return mean_interval([y - x for x, y in zip(a, b, strict=True)], level)


def mean_interval(values: Sequence[float], level: float = 0.95) -> tuple[float, float, float]:
    """The mean of values with its Student-t interval: (mean, low, high).

    Raises:
        ValueError: fewer than two values.
    """
    if len(values) < 2:
        raise ValueError(f"an interval needs two or more values, got {len(values)}")
    from scipy.stats import t

    mean = statistics.fmean(values)
    half = float(t.ppf(0.5 + level / 2, len(values) - 1)) * statistics.stdev(values) / math.sqrt(len(values))
    return mean, mean - half, mean + half


def paired_power(mean: float, deviation: float, pairs: int, level: float = 0.95) -> float:
    """How often the interval of `paired_interval` is beyond 0 on the side of `mean`, for normal differences.

    Args:
        mean: of the differences.
        deviation: their standard deviation.
        pairs: how many there are; fewer than two have no interval, and see nothing.
        level: of the interval.
    """
    if pairs < 2 or not mean:
        return 0.0
    # Above this the noncentral t has no digits left, and hardly a run misses.
    if abs(mean) * math.sqrt(pairs) > CERTAIN * deviation:
        return 1.0
    from scipy.stats import nct, t

    beyond = t.ppf(0.5 + level / 2, pairs - 1)
    return float(nct.sf(beyond, pairs - 1, abs(mean) * math.sqrt(pairs) / deviation))


def skewed_power(
    mean: float, deviation: float, skewness: float, kurtosis: float, pairs: int, level: float = 0.95
) -> float:  # fmt: skip
    """The same for 20 and more differences of any distribution, by its first four moments.

    A rare large difference moves mean and deviation together, so Student's t varies less than of normal differences:
    its mean and variance are those of the delta method, to the first order in 1 / pairs.

    Args:
        mean: of the differences.
        deviation: their standard deviation.
        skewness: theirs.
        kurtosis: in excess of the normal one.
        pairs: how many there are; fewer than two have no interval.
        level: of the interval.
    """
    if pairs < 2 or not mean:
        return 0.0
    if abs(mean) * math.sqrt(pairs) > CERTAIN * deviation:
        return 1.0
    from scipy.stats import norm, t

    effect, skewness = abs(mean) / deviation, math.copysign(1, mean) * skewness
    centre = effect * math.sqrt(pairs) + (3 / 8 * effect * (kurtosis + 2) - skewness / 2) / math.sqrt(pairs)
    variance = 1 - effect * skewness + effect**2 * (kurtosis + 2) / 4
    return float(norm.sf((t.ppf(0.5 + level / 2, pairs - 1) - centre) / math.sqrt(max(variance, 1e-12))))


def welch_interval(a: Sequence[float], b: Sequence[float], level: float = 0.95) -> tuple[float, float]:
    """The interval of mean(b) - mean(a) of samples that do not pair, whose variances may differ (Welch, 1947).

    Raises:
        ValueError: fewer than two values on a side.
    """
    _check_samples(a, b)
    from scipy.stats import t

    parts = [statistics.variance(side) / len(side) for side in (a, b)]
    difference = statistics.fmean(b) - statistics.fmean(a)
    total = sum(parts)
    if not total:
        return difference, difference
    freedom = 1 / sum((part / total) ** 2 / (len(side) - 1) for part, side in zip(parts, (a, b), strict=True))
    half = float(t.ppf(0.5 + level / 2, freedom)) * math.sqrt(total)
    return difference - half, difference + half


def median_difference_interval(
    a: Sequence[float], b: Sequence[float], level: float = 0.95, paired: bool = True
) -> tuple[float, float]:
    """The bootstrap interval of median(b) - median(a) over rounds: robust to the outliers that timings have.

    Raises:
        ValueError: fewer than two values on a side, or unlike counts of paired ones.
    """
    return _bootstrap(np.subtract, a, b, level, paired)


def median_ratio_interval(
    a: Sequence[float], b: Sequence[float], level: float = 0.95, paired: bool = True
) -> tuple[float, float]:
    """The bootstrap interval of median(b) / median(a) over rounds, of positive values such as times.

    Raises:
        ValueError: fewer than two values on a side, unlike counts of paired ones, or a value that is not positive.
    """
    if min((*a, *b), default=1.0) <= 0:
        raise ValueError("a ratio of medians needs positive values")
    return _bootstrap(np.divide, a, b, level, paired)


def _bootstrap(
    compare: np.ufunc, a: Sequence[float], b: Sequence[float], level: float, paired: bool
) -> tuple[float, float]:
    """The percentile interval of `compare` of the medians of b and a."""
    (_check_pairs if paired else _check_samples)(a, b)
    from scipy.stats import bootstrap

    found = bootstrap(
        (a, b), lambda a, b, axis: compare(np.median(b, axis), np.median(a, axis)), n_resamples=2000,
        vectorized=True, paired=paired, confidence_level=level, method="percentile", rng=0,
    ).confidence_interval  # fmt: skip
    return float(found.low), float(found.high)


@dataclass(frozen=True)
class RankCorrelation:
    """Spearman's rank correlation with its interval, over `count` pairs."""

    value: float
    low: float
    high: float
    count: int

    def __str__(self) -> str:
        return f"{self.value:+.2f} ({self.low:+.2f} to {self.high:+.2f}, {self.count} pairs)"


def rank_correlation(x: Sequence[float], y: Sequence[float], level: float = 0.95) -> RankCorrelation:
    """Spearman's rank correlation, its interval by Fisher's z with the standard error of Bonett and Wright (2000).

    Raises:
        ValueError: unlike lengths, or fewer than four pairs.
    """
    if len(x) != len(y) or len(x) < 4:
        raise ValueError(f"a rank correlation needs four or more pairs, got {len(x)} and {len(y)}")
    from scipy.stats import norm, spearmanr

    value = float(spearmanr(x, y).statistic)
    if math.isnan(value):
        return RankCorrelation(value, -1.0, 1.0, len(x))
    half = float(norm.ppf(0.5 + level / 2)) * math.sqrt((1 + value**2 / 2) / (len(x) - 3))
    # A perfect correlation has an infinite z.
    centre = math.atanh(max(-1 + 1e-12, min(1 - 1e-12, value)))
    return RankCorrelation(value, math.tanh(centre - half), math.tanh(centre + half), len(x))


def _check_pairs(a: Sequence[float], b: Sequence[float]) -> None:
    if len(a) != len(b) or len(a) < 2:
        raise ValueError(f"a paired interval needs two or more pairs, got {len(a)} and {len(b)}")


def _check_samples(a: Sequence[float], b: Sequence[float]) -> None:
    if min(len(a), len(b)) < 2:
        raise ValueError(f"an interval needs two or more values on each side, got {len(a)} and {len(b)}")
