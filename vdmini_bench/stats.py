"""Small-sample statistics: numbers in, intervals out."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

import numpy as np


def paired_interval(a: Sequence[float], b: Sequence[float], level: float = 0.95) -> tuple[float, float, float]:
    """The mean of b - a over pairs with its Student-t interval: (mean, low, high).

    Raises:
        ValueError: unlike or fewer than two pairs.
    """
    if len(a) != len(b) or len(a) < 2:
        raise ValueError(f"a paired interval needs two or more pairs, got {len(a)} and {len(b)}")
    from scipy.stats import t

    differences = [y - x for x, y in zip(a, b, strict=True)]
    mean = statistics.fmean(differences)
    half = float(t.ppf(0.5 + level / 2, len(a) - 1)) * statistics.stdev(differences) / math.sqrt(len(a))
    return mean, mean - half, mean + half


def median_difference_interval(
    a: Sequence[float], b: Sequence[float], level: float = 0.95, resamples: int = 2000
) -> tuple[float, float]:
    """The bootstrap interval of median(b) - median(a) over paired rounds: robust to the outliers that timings have.

    Raises:
        ValueError: unlike or fewer than two pairs.
    """
    if len(a) != len(b) or len(a) < 2:
        raise ValueError(f"a paired interval needs two or more pairs, got {len(a)} and {len(b)}")
    chosen = np.random.default_rng(0).integers(0, len(a), (resamples, len(a)))
    differences = np.median(np.asarray(b)[chosen], axis=1) - np.median(np.asarray(a)[chosen], axis=1)
    low, high = np.quantile(differences, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
