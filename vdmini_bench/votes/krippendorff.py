"""How far voters agree beyond chance."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray


def krippendorff_alpha(ratings: NDArray[np.float64]) -> float:
    """Krippendorff's alpha with squared differences ("interval"), of ratings voters x units, NaN where there is none.

    1 where all agree, 0 as by chance; NaN where no unit has two ratings or all ratings are equal. Unlike Fleiss' kappa
    it takes voters who did not rate every unit. Krippendorff, Computing Krippendorff's Alpha-Reliability (2011).
    """
    counts = (~np.isnan(ratings)).sum(0)
    values, counts = ratings[:, counts >= 2], counts[counts >= 2]
    total = counts.sum()
    if not total:
        return math.nan
    # Of m values, all squared differences together are 2 (m sum of squares - square of the sum).
    sums, squares = np.nansum(values, 0), np.nansum(values**2, 0)
    observed = (2 * (counts * squares - sums**2) / (counts - 1)).sum() / total
    expected = 2 * (total * squares.sum() - sums.sum() ** 2) / (total * (total - 1))
    return float(1 - observed / expected) if expected else math.nan
