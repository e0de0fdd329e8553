"""Small-sample statistics: numbers in, intervals out."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence


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
