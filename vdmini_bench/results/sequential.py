"""Stop as soon as the evidence is enough: tests of paired differences that stay valid however often one looks.

A wealth of 1 is staked draw by draw against the hypothesis that the mean is on the other side. If that is true, no way
of betting makes the wealth grow on the average, so it ever reaches 1 / level with a probability of at most `level`
(Ville 1939). Two ways to bet: for differences between known bounds that of Waudby-Smith and Ramdas (2024, "Estimating
means of bounded random variables by betting", sections 4 and 5), which is exact; for all others Robbins' normal mixture
with the variance seen so far, valid as the draws grow (Waudby-Smith et al. 2024, "Time-uniform central limit theory and
asymptotic confidence sequences").
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

Verdict = Literal["no worse", "worse", "better", "undecided"]
Values = NDArray[np.float64]
# Draws that only say how much the differences vary; fewer would do where bounds are known. With 20 instead of 30 a loss
# that is one prompt's in ten alone would be missed in 12 % of runs instead of 5 %.
SEEN_FIRST, SEEN_FIRST_OF_BOUNDED = 30, 8
# The share of the stake that a bet may lose.
MOST = 0.5
# Farthest draws that variances are given besides: of skewed differences the rare large ones may be to come. With 3
# instead of 6 a recorded student at the margin was said to be worse in 6.4 % of runs instead of 3.9 %.
FARTHEST = 6
# Means that differ by less are the same.
ROUNDING = 1e-9


@dataclass(frozen=True)
class Decision:
    """What follows from the draws so far: `after` how many it was decided, all of them where it is not.

    `no_worse`, `worse` and `better` are the wealth after each draw of the bets on the three, float64.
    """

    verdict: Verdict
    after: int
    no_worse: Values
    worse: Values
    better: Values


def decide(
    differences: Sequence[float] | Values, margin: float, bounds: tuple[float, float] | None = None, *,
    level: float = 0.05, population: int | None = None,
) -> Decision:  # fmt: skip
    """Whether a student is no worse than its teacher by `margin`, from paired differences in the order of their draws.

    "no worse": their mean is above -margin; "worse": below it; "better", said where it is known as early: above 0. Each
    is said wrongly with a probability of at most `level`. `bounds` are what a difference can be, and needed where most
    of them are 0, as of answers yes or no: rare ones may not have been seen yet. `population` is how many there are in
    all, where none is drawn twice: then the last ones count for more, and after all of them their mean is known.

    Raises:
        ValueError: a margin or level that is none, a difference outside the bounds, or more than the population.
    """
    values = np.asarray(differences, np.float64)
    if not (margin > 0 and 0 < level < 1):
        raise ValueError(f"a margin above 0 and a level between 0 and 1: not {margin} and {level}")
    if bounds is not None and not ((bounds[0] <= values) & (values <= bounds[1])).all():
        raise ValueError(f"differences lie between {bounds[0]} and {bounds[1]}, not {values.min()} and {values.max()}")
    if population is not None and len(values) > population:
        raise ValueError(f"{len(values)} draws of a population of {population}")
    low, high = (None, None) if bounds is None else bounds
    no_worse = wealth(values, -margin, low, margin, population)
    worse = wealth(-values, margin, None if high is None else -high, margin, population)
    better = wealth(values, 0.0, low, margin, population)
    first = {"no worse": _first(no_worse, level), "worse": _first(worse, level)}
    verdict: Verdict = "no worse" if first["no worse"] <= first["worse"] else "worse"
    after = first[verdict]
    if after > len(values):
        verdict, after = _of_all(values, margin) if len(values) == population else "undecided", len(values)
    elif verdict == "no worse" and _first(better, level) <= after:
        verdict = "better"
    return Decision(verdict, after, no_worse, worse, better)


def _of_all(values: Values, margin: float) -> Verdict:
    """What the mean of all there are says; nothing where it is the margin."""
    above = float(values.mean()) + margin
    if abs(above) < ROUNDING:
        return "undecided"
    return "no worse" if above > 0 else "worse"


def wealth(values: Values, mean: float, low: float | None, expected: float, population: int | None = None) -> Values:
    """What a stake of 1 has become after each draw, bet on the mean of all values being above `mean`.

    `low` is the least that a value can be, None where that is not known; `expected` is by how much the mean is thought
    to be above, which decides how boldly it is bet, never whether it is valid.
    """
    before = np.arange(len(values))
    sums = np.cumsum(values) - values
    # Of what is not drawn yet, if the hypothesis is true: what was drawn is no longer there.
    means = np.full(len(values), mean) if population is None else (population * mean - sums) / (population - before)
    if low is None:
        return _mixture(values, values - means, expected)
    # Kelly's bet on the mean that is expected, with the variance seen so far.
    bets = expected / (_variance(values, before) + expected**2)
    bets = np.where(before < SEEN_FIRST_OF_BOUNDED, 0.0, np.minimum(bets, MOST / np.maximum(means - low, 1e-12)))
    # Where nothing that is left could make the hypothesis true, it is refuted.
    gains: Values = np.where(means < low, np.inf, 1 + bets * (values - means))
    return np.multiply.accumulate(gains)


def _mixture(values: Values, gains: Values, expected: float) -> Values:
    """Robbins' mixture over all bets above 0, half a normal distribution: 1 for as long as draws are only looked at."""
    draws = np.arange(1, len(values) + 1)
    farthest = np.cumsum(values) / draws - np.minimum.accumulate(values)
    variance = _variance(values, draws) + FARTHEST * farthest**2 / draws
    spread = expected / (variance[min(SEEN_FIRST, len(values)) - 1] + expected**2)
    sums, total = np.cumsum(gains), draws * variance
    scale = 1 + spread**2 * total
    log = np.log(2) - np.log(scale) / 2 + (spread * sums) ** 2 / (2 * scale) + norm.logcdf(spread * sums / scale**0.5)
    found: Values = np.where(draws < SEEN_FIRST, 1.0, np.exp(np.minimum(log, 700.0)))
    return found


def _variance(values: Values, counts: NDArray[np.int64]) -> Values:
    """The variance of the first values, for each of these counts; 0 of none."""
    sums, squares = (np.concatenate([[0.0], np.cumsum(each)])[counts] for each in (values, values**2))
    seen = np.maximum(counts, 1)
    found: Values = np.maximum(squares / seen - (sums / seen) ** 2, 0.0)
    return found


def _first(wealth: Values, level: float) -> int:
    """After how many draws it is enough, one more than there are where it never is."""
    enough = wealth >= 1 / level
    return int(enough.argmax()) + 1 if enough.any() else len(wealth) + 1
