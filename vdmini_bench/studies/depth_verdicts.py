"""Verdicts on where content and motion are: contrasts over depth, one number a teacher, intervals over teachers."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from vdmini_bench.results.stats import mean_interval
from vdmini_bench.studies.depth import Effect, Experiment

Answer = Literal["supported", "contradicted", "inconclusive"]
# What the first and the last few blocks are, of all.
END = 1 / 6
POWER = 0.8


@dataclass(frozen=True)
class Contrast:
    """One number a teacher: its mean with a 95 % interval over `teachers`, and the least that they would have shown.

    `least` is the smallest true mean that an interval of so many teachers, as far apart as these, excludes 0 of in 80 %
    of cases.
    """

    name: str
    experiment: Experiment
    phase: str
    values: tuple[float, ...]
    mean: float
    low: float
    high: float
    least: float

    def answer(self, positive: bool = True) -> Answer:
        """Whether the interval lies on the side that a claim expects, on the other, or on both."""
        low, high = (self.low, self.high) if positive else (-self.high, -self.low)
        return "supported" if low > 0 else "contradicted" if high < 0 else "inconclusive"


def motion_slope(effects: Sequence[Effect]) -> float:
    """How much motion's effect less content's grows from the first block to the last: a least-squares slope."""
    motion, content = (_by_depth(effects, factor) for factor in ("motion", "content"))
    depths = [*motion]
    return float(np.polyfit(depths, [motion[depth] - content[depth] for depth in depths], 1)[0])


def ends_excess(effects: Sequence[Effect]) -> float:
    """How much more the first and the last blocks carry, of content and motion together, than those between them."""
    both = _by_depth(effects, "content"), _by_depth(effects, "motion")
    carried = {depth: statistics.fmean(each[depth] for each in both) for depth in both[0]}
    outer = [value for depth, value in carried.items() if min(depth, 1 - depth) < END]
    inner = [value for depth, value in carried.items() if min(depth, 1 - depth) >= END]
    return statistics.fmean(outer) - statistics.fmean(inner)


CONTRASTS = {"motion less content, by depth": motion_slope, "first and last, less the middle": ends_excess}


def contrasts(teachers: Mapping[str, Sequence[Effect]]) -> list[Contrast]:
    """Every contrast of each experiment and phase, over two teachers or more."""
    every = [effect for effects in teachers.values() for effect in effects]
    kinds = dict.fromkeys((effect.experiment, effect.phase) for effect in every)
    found = []
    for experiment, phase in kinds:
        for name, contrast in CONTRASTS.items():
            values = [
                contrast([each for each in effects if (each.experiment, each.phase) == (experiment, phase)])
                for effects in teachers.values()
            ]
            mean, low, high = mean_interval(values)
            found.append(Contrast(name, experiment, phase, tuple(values), mean, low, high, least_shown(values)))
    return found


def least_shown(values: Sequence[float]) -> float:
    """The smallest true mean that a 95 % Student interval of as many such values leaves out 0 for in 80 % of cases."""
    from scipy.optimize import brentq
    from scipy.stats import chi2, norm, t

    freedom = len(values) - 1
    # What deviations of so many values are, evenly in probability, in units of the true one, times what excludes 0.
    bounds = t.ppf(0.975, freedom) * np.sqrt(chi2.ppf((np.arange(4000) + 0.5) / 4000, freedom) / freedom)

    def power(shift: float) -> float:
        return float(np.mean(norm.sf(bounds - shift) + norm.cdf(-bounds - shift))) - POWER

    return float(brentq(power, 0.0, 100.0)) * statistics.stdev(values) / math.sqrt(len(values))


def _by_depth(effects: Sequence[Effect], factor: str) -> dict[float, float]:
    return {effect.depth: effect.value for effect in effects if effect.factor == factor}
