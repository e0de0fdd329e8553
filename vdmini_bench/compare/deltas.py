"""Compare two result sets metric by metric: paired where their samples pair, and refused where they are unlike."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from vdmini_bench.compare.comparability import is_of_a_machine, what_must_agree
from vdmini_bench.compare.result_sets import ResultSet
from vdmini_bench.errors import NotComparableError, NothingMeasuredError
from vdmini_bench.results.records import Record
from vdmini_bench.results.score import Score
from vdmini_bench.results.stats import (
    median_difference_interval,
    median_ratio_interval,
    paired_interval,
    welch_interval,
)
from vdmini_bench.system.tables import interval_cell, number_cell

TIME, SPEEDUP = "latency", "speedup"
NORMAL_95 = 1.96

Interval = tuple[float, float] | None
Basis = Literal[
    "paired blocks", "unpaired blocks", "paired rounds", "unpaired rounds", "paired trainings", "unpaired trainings",
    "standard errors", "none",
]  # fmt: skip


@dataclass(frozen=True)
class Delta:
    """One metric of two models: values, the difference b - a and the ratio b / a, each with its 95 % interval.

    `basis` says what the intervals come from, `unlike` how the two differ that should not, `verdict` what follows.
    Values are None where they were not measured. Times have the ratio of their medians, with `ratio_interval`.
    """

    model: str
    metric: str
    protocol: str
    a: float | None
    b: float | None
    interval: Interval
    ratio_interval: Interval
    basis: Basis
    unlike: tuple[str, ...]
    verdict: str

    @property
    def delta(self) -> float | None:
        """The difference b - a."""
        return None if self.a is None or self.b is None else self.b - self.a

    @property
    def ratio(self) -> float | None:
        """The ratio b / a; None where a is zero."""
        return self.b / self.a if self.a and self.b is not None else None

    def cells(self) -> tuple[str, ...]:
        """What tables show of it: both values, the difference with its interval, and the ratio."""
        a, b, delta = number_cell(self.a), number_cell(self.b), number_cell(self.delta, 4)
        return a, b, delta, interval_cell(self.interval), number_cell(self.ratio, 4)

    def to_json(self) -> dict[str, Any]:
        """The object that `compare --json` prints for a metric."""
        plain = ("model", "metric", "protocol", "a", "b", "delta", "ratio")
        ends = {"ci": self.interval and [*self.interval], "ratio_ci": self.ratio_interval and [*self.ratio_interval]}
        last = {"basis": self.basis, "unlike": [*self.unlike], "verdict": self.verdict}
        return {name: getattr(self, name) for name in plain} | ends | last


def compare_result_sets(a: ResultSet, b: ResultSet, allow_unlike: bool = False) -> list[Delta]:
    """Compare all metrics that both result sets have; of two whole runs, those of every model that both have.

    A whole run beside one model stands for that run's model of the same name.

    Raises:
        NotComparableError: a metric's protocol, version, sample count or machine differs, or one side has no value,
            and `allow_unlike`, which compares such metrics all the same and marks them, is not given.
        NothingMeasuredError: the two share no model or no metric.
    """
    return [_compare(left, right, allow_unlike) for left, right in paired_records(a, b)]


def paired_records(a: ResultSet, b: ResultSet) -> list[tuple[Record, Record]]:
    """The records of every metric that both have; raises NothingMeasuredError as `compare_result_sets` does."""
    if a.whole and b.whole:
        models = [model for model in a.models if model in b.models]
        if not models:
            raise NothingMeasuredError(f"{a.source} and {b.source} share no model")
        pairs = [(a.of(model), b.of(model)) for model in models]
    else:
        pairs = [(a.of(b.models[0]) if a.whole else a, b.of(a.models[0]) if b.whole else b)]
    found = [records for first, second in pairs for records in _same_metrics(first, second)]
    if not found:
        raise NothingMeasuredError(f"{a.name} and {b.name} share no metric")
    return found


def notable_differences(a: ResultSet, b: ResultSet) -> list[str]:
    """What differs between two result sets without making them unlike, in words: software and suite settings."""
    told = []
    for what, column in (("torch", "torch"), ("code", "commit"), ("suite settings", "suite_sha")):
        left, right = ({getattr(record.row, column) for record in each.records} - {""} for each in (a, b))
        if left and right and left != right:
            told.append(f"{what} differs: {', '.join(sorted(left))} and {', '.join(sorted(right))}")
    return told


def _same_metrics(a: ResultSet, b: ResultSet) -> Iterator[tuple[Record, Record]]:
    first = {record.score.metric: record for record in a.records}
    second = {record.score.metric: record for record in b.records}
    for metric, left in first.items():
        right = second.get(metric)
        # What neither side could measure says nothing about either.
        if right is None or left.score.status == right.score.status == "unavailable":
            continue
        yield left, right


def _compare(a: Record, b: Record, allow_unlike: bool) -> Delta:
    left, right = a.score, b.score
    reasons = check_alike(a, b, allow_unlike)
    found = partial(Delta, right.model, left.metric, left.protocol, left.value, right.value, unlike=tuple(reasons))
    if left.value is None or right.value is None:
        return found(interval=None, ratio_interval=None, basis="none", verdict="not compared")
    basis = basis_of(a, b)
    interval, ratio_interval = _intervals(left, right, basis)
    verdict = _verdict(left, right, interval)
    return found(interval=interval, ratio_interval=ratio_interval, basis=basis, verdict=verdict)


def check_alike(a: Record, b: Record, allow_unlike: bool = False) -> list[str]:
    """How two records differ that should not; raises NotComparableError where that is anything and not allowed."""
    left, right = a.score, b.score
    missing = left.value is None or right.value is None
    reasons = [f"{left.model} is {left.status}, {right.model} is {right.status}"] if missing else _unlike(a, b)
    if reasons and not allow_unlike:
        advice = "mend and run again" if missing else "--allow-unlike compares anyway"
        raise NotComparableError(f"{left.metric}: {'; '.join(reasons)}; {advice}")
    return reasons


def _unlike(a: Record, b: Record) -> list[str]:
    unlike = []
    for what, column in what_must_agree(a.score.metric).items():
        one, other = (getattr(each.row, column) or "unknown" for each in (a, b))
        if one != other and (what != "machine" or is_of_a_machine(a.score.metric)):
            unlike.append(f"the {what} differs ({a.score.model} {one}, {b.score.model} {other})")
    return unlike


def basis_of(a: Record, b: Record) -> Basis:
    """What an interval can be computed from: samples that pair before those that do not, those before errors."""
    one, other = a.score, b.score
    # The blocks of one training are of clips, those of several are of trainings: the two are never mixed.
    enough = min(len(one.blocks), len(other.blocks)) >= 2 and one.trainings == other.trainings
    # The blocks of a speed-up are the ends of its interval.
    if enough and not one.metric.startswith(SPEEDUP):
        equal = len(one.blocks) == len(other.blocks)
        if one.metric.startswith(TIME):
            # Timed in turn, round by round, or at another time.
            together = equal and (a.run, a.row.date) == (b.run, b.row.date)
            return "paired rounds" if together else "unpaired rounds"
        paired = equal and _same_samples(a, b)
        if one.trainings > 1:
            return "paired trainings" if paired else "unpaired trainings"
        return "paired blocks" if paired else "unpaired blocks"
    return "none" if one.standard_error is None or other.standard_error is None else "standard errors"


def _same_samples(a: Record, b: Record) -> bool:
    """Whether the samples were made from the same seeds and conditions; the second set of real clips never was."""
    if "reference" in (a.row.role, b.row.role):
        return a.row.role == b.row.role and a.run == b.run
    return a.run == b.run or (a.conditions is not None and a.conditions == b.conditions)


def _intervals(a: Score, b: Score, basis: Basis) -> tuple[Interval, Interval]:
    """The 95 % intervals of the difference and, of times, of the ratio."""
    assert a.value is not None
    assert b.value is not None
    if basis in ("paired rounds", "unpaired rounds"):
        paired = basis == "paired rounds"
        positive = min(*a.blocks, *b.blocks) > 0
        ratio = median_ratio_interval(a.blocks, b.blocks, paired=paired) if positive else None
        return median_difference_interval(a.blocks, b.blocks, paired=paired), ratio
    if basis in ("paired blocks", "paired trainings"):
        return paired_interval(a.blocks, b.blocks)[1:], None
    if basis in ("unpaired blocks", "unpaired trainings"):
        return welch_interval(a.blocks, b.blocks), None
    if basis == "standard errors":
        half = NORMAL_95 * math.hypot(a.standard_error or 0.0, b.standard_error or 0.0)
        return (b.value - a.value - half, b.value - a.value + half), None
    return None, None


def _verdict(a: Score, b: Score, interval: Interval) -> str:
    assert a.value is not None
    assert b.value is not None
    if a.value == b.value:
        return "equal"
    if interval is not None and interval[0] <= 0 <= interval[1]:
        return "no difference shown"
    name = b.model if b.model != a.model else "the second"
    if a.better == "neither":
        return f"{name} differs"
    improved = (b.value < a.value) == (a.better == "lower")
    return f"{name} is better" if improved else f"{name} is worse"
