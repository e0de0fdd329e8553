"""A metric over time: comparable measurements as series, and the steps in them."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable
from dataclasses import asdict, astuple, dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vdmini_bench.results.score import Row, number_in

# The fewest runs on a side of a step: two may lie close to each other by chance.
SHORTEST = 3
SHUFFLES = 999
LEVEL = 0.05
METHOD = (
    "binary segmentation: the split of a series into two means that lowers the squared deviations most is a step where"
    f" at most {LEVEL:.0%} of {SHUFFLES} shuffles of the series have a split that lowers them as much; then each side"
    f" on its own; at least {SHORTEST} runs on a side"
)


@dataclass(frozen=True)
class Point:
    """One measurement of a series."""

    date: str
    value: float
    standard_error: float | None
    commit: str
    run_id: str


@dataclass(frozen=True)
class Step:
    """A change of level: the first point after it, the means before and after, and how often shuffles do as well."""

    index: int
    date: str
    commit: str
    before: float
    after: float
    p: float


@dataclass(frozen=True)
class Series:
    """Measurements that compare, oldest first: all that stands before the points is the same for them."""

    suite: str
    profile: str
    model: str
    recipe: str
    metric: str
    unit: str
    better: str
    protocol: str
    metric_version: str
    n: str
    machine_id: str
    points: tuple[Point, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The object that `leaderboard history --json` prints for a series."""
        n = number_in(self.n, f"n of {self.model} {self.metric}") if self.n else None
        return {**asdict(self), "n": n, "steps": [*map(asdict, find_steps(self))]}


def collect_series(rows: Iterable[Row], wanted: Callable[[Row], bool]) -> list[Series]:
    """The series of the wanted rows that were measured, in order of their names.

    Raises:
        BenchError: a number cannot be read.
    """
    found: dict[Series, dict[tuple[str, str], Row]] = {}
    for row in rows:
        if row.status == "ok" and wanted(row):
            # Measured once, however many files say so.
            series = Series(*(getattr(row, field.name) for field in fields(Series)[:-1]))
            found.setdefault(series, {})[row.date, row.run_id] = row
    return [
        replace(series, points=tuple(_point(row) for _, row in sorted(measured.items())))
        for series, measured in sorted(found.items(), key=lambda item: astuple(item[0]))
    ]


def _point(row: Row) -> Point:
    error = float(row.number("se")) if row.se else None
    return Point(row.date, float(row.number("value")), error, row.commit, row.run_id)


def find_steps(series: Series) -> list[Step]:
    """The steps of a series, oldest first, by `METHOD`; it needs about four runs on each side of one."""
    values = np.array([point.value for point in series.points])
    cuts = sorted(_cuts(values, 0, np.random.default_rng(0)))
    ends = [0, *(cut for cut, _ in cuts), len(values)]
    steps = []
    for index, (cut, p) in enumerate(cuts):
        before, after = values[ends[index] : cut], values[cut : ends[index + 2]]
        point = series.points[cut]
        steps.append(Step(cut, point.date, point.commit, statistics.fmean(before), statistics.fmean(after), p))
    return steps


def _cuts(values: NDArray[np.float64], offset: int, random: np.random.Generator) -> list[tuple[int, float]]:
    """Where to cut a series, counted from `offset`, each cut with its share of shuffles."""
    count = len(values)
    if count < 2 * SHORTEST or np.ptp(values) <= 1e-9 * np.abs(values).max():
        return []
    gains = _gains(values[None])[0]
    best = int(gains.argmax())
    shuffled = random.permuted(np.tile(values, (SHUFFLES, 1)), axis=1)
    # Rounding must not tell equal splits apart.
    as_good = int((_gains(shuffled).max(axis=1) >= gains[best] * (1 - 1e-9)).sum())
    p = (as_good + 1) / (SHUFFLES + 1)
    if p > LEVEL:
        return []
    cut = best + SHORTEST
    left, right = _cuts(values[:cut], offset, random), _cuts(values[cut:], offset + cut, random)
    return [*left, (offset + cut, p), *right]


def _gains(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """By how much each allowed split of each row (rows x runs) into two means lowers the squared deviations."""
    count = values.shape[1]
    centred = values - values.mean(axis=1, keepdims=True)
    sums = centred.cumsum(axis=1)[:, SHORTEST - 1 : count - SHORTEST]
    sizes = np.arange(SHORTEST, count - SHORTEST + 1)
    gains: NDArray[np.float64] = sums**2 * count / (sizes * (count - sizes))
    return gains


def describe_step(series: Series, step: Step) -> str:
    """A step in words: when, at which commit, from where to where, for better or worse."""
    share = (step.after - step.before) / abs(step.before) if step.before else math.nan
    better = {"lower": step.after < step.before, "higher": step.after > step.before}.get(series.better)
    word = "changed" if better is None else "better" if better else "worse"
    change = "" if math.isnan(share) else f", {share:+.1%}"
    return (
        f"{step.date}, commit {step.commit or 'unknown'}: {step.before:.5g} to {step.after:.5g} ({word}{change};"
        f" p = {step.p:.3g})"
    )
