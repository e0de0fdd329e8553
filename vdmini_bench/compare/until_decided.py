"""After how many of its videos a comparison was decided, had they been looked at one after the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from vdmini_bench.compare.deltas import basis_of, check_alike, paired_records
from vdmini_bench.compare.result_sets import ResultSet
from vdmini_bench.errors import NothingMeasuredError
from vdmini_bench.results.records import Record
from vdmini_bench.results.sequential import SEEN_FIRST, Decision, Verdict, decide
from vdmini_bench.results.table import DIMENSION
from vdmini_bench.vbench.totals import total_weights

# Fixed, so that nobody can look for an order that says what they want.
ORDER_SEED = 0
TOTAL = "total"
# Beyond what decides, evidence needs no digits; what refutes for certain has won without end.
MOST_SHOWN = 1e6
# Under these protocols the total is the official one; under others it is the plain mean.
OFFICIAL: Mapping[str, Mode] = {"vbench-t2v": "t2v", "vbench-i2v": "i2v"}
HEADER = ["model", "metric", "difference of all", "verdict", "decided after", "share"]
Values = NDArray[np.float64]
Mode = Literal["t2v", "i2v"]


@dataclass(frozen=True)
class Paired:
    """One metric's differences, of the second model to the first, in the metric's own direction: below 0 is worse.

    In the order of their draws, `values` N float64; `bounds` are what they can be, where that is known and needed;
    `population` is how many there are in all, None where that is not known.
    """

    model: str
    metric: str
    values: Values
    bounds: tuple[float, float] | None
    population: int | None


@dataclass(frozen=True)
class Decided:
    """One metric, or the total: what was decided of the second model against the first, and after how many samples.

    `difference` is that of all `samples`, in the metric's own direction: below 0 is worse.
    """

    model: str
    metric: str
    margin: float
    verdict: Verdict
    after: int
    samples: int
    difference: float
    decision: Decision = field(repr=False, compare=False)

    def cells(self) -> list[str]:
        """What the table shows of it."""
        share = f"{self.after / self.samples:.0%}"
        after = f"{self.after} of {self.samples}"
        return [self.model, self.metric, f"{self.difference:+.4f}", self.verdict, after, share]

    def to_json(self) -> dict[str, Any]:
        """The object that `compare --sequential --json` prints; of `evidence`, what bets have won, 20 decides."""
        told = {name: value for name, value in asdict(self).items() if name != "decision"}
        bets = {"no worse": self.decision.no_worse, "worse": self.decision.worse, "better": self.decision.better}
        return told | {"evidence": {name: float(min(won.max(), MOST_SHOWN)) for name, won in bets.items()}}


def decide_result_sets(a: ResultSet, b: ResultSet, margin: float) -> list[Decided]:
    """Whether the second is no worse than the first by `margin`, sample by sample, for every metric whose samples pair.

    Raises:
        NotComparableError: as `compare_result_sets` does.
        NothingMeasuredError: no metric has as many samples in both as a decision needs.
    """
    pairs = [pair for pair in paired_by_sample(a, b) if len(pair[0].score.blocks) >= SEEN_FIRST]
    if not pairs:
        raise NothingMeasuredError(
            f"{a.name} and {b.name} share no metric of {SEEN_FIRST} or more prompts: VBench's dimensions have them"
        )
    counts = [len(left.score.blocks) for left, _ in pairs]
    differences = [paired_differences(pair, [count], count) for pair, count in zip(pairs, counts, strict=True)]
    return decide_all(differences, margin, OFFICIAL.get(pairs[0][0].score.protocol))


def paired_by_sample(a: ResultSet, b: ResultSet) -> list[tuple[Record, Record]]:
    """The records of all metrics whose samples pair; raises as `compare_result_sets` does."""
    pairs = [pair for pair in paired_records(a, b) if basis_of(*pair) == "paired blocks"]
    for pair in pairs:
        check_alike(*pair)
    return pairs


def paired_differences(pair: tuple[Record, Record], parts: Sequence[int], population: int | None) -> Paired:
    """The differences of a metric that was measured in `parts` of so many samples each, each in an order of its own."""
    a, b = (record.score for record in pair)
    differences = np.subtract(b.blocks, a.blocks) * (-1 if a.better == "lower" else 1)
    random, ends = np.random.default_rng(ORDER_SEED), np.cumsum(parts)
    order = np.concatenate([end - part + random.permutation(part) for part, end in zip(parts, ends, strict=True)])
    bounds = bounds_of(np.array([a.blocks, b.blocks]))
    return Paired(pair[1].row.model, a.metric, differences[order], bounds, population)


def bounds_of(scores: Values) -> tuple[float, float] | None:
    """What the differences of two models' scores 2 x N can be, where a decision has to know that.

    Scores between 0 and 1 that mostly tie are answers: the few that differ may come late.
    """
    between = scores.min() >= 0 and scores.max() <= 1
    return (-1.0, 1.0) if between and np.mean(scores[0] == scores[1]) > 0.5 else None


def decide_all(differences: Sequence[Paired], margin: float, official: Mode | None) -> list[Decided]:
    """The decision of every metric and, last of each model, that of the total where there is one.

    The total is that of the `official` mode, or where that is None the mean of all metrics.
    """
    weights = official and {f"{DIMENSION}{name}": weight for name, weight in total_weights(official).items()}
    found = []
    for model in dict.fromkeys(each.model for each in differences):
        own = [each for each in differences if each.model == model]
        total = total_of(own, weights) if len(own) > 1 else None
        found += [_decide(each, margin) for each in (*own, *([total] if total else []))]
    return found


def total_of(own: Sequence[Paired], weights: Mapping[str, float] | None) -> Paired | None:
    """The weighted sum of one draw of each metric, then of the next: its mean is the difference of the total.

    Without weights all count alike; None where a weighted metric is not there.
    """
    if weights is None:
        weights = {each.metric: 1 / len(own) for each in own}
    by_name = {each.metric: each for each in own}
    if any(name not in by_name for name in weights):
        return None
    draws = min(len(by_name[name].values) for name in weights)
    values = sum((weight * by_name[name].values[:draws] for name, weight in weights.items()), np.zeros(draws))
    populations = {by_name[name].population for name in weights}
    bounded = np.mean(values == 0) > 0.5 and all(by_name[name].bounds for name in weights)
    most = sum(weights.values())
    return Paired(
        own[0].model, TOTAL, values, (-most, most) if bounded else None,
        populations.pop() if len(populations) == 1 else None,
    )  # fmt: skip


def _decide(paired: Paired, margin: float) -> Decided:
    decision = decide(paired.values, margin, paired.bounds, population=paired.population)
    mean = float(paired.values.mean())
    return Decided(
        paired.model, paired.metric, margin, decision.verdict, decision.after, len(paired.values), mean, decision
    )
