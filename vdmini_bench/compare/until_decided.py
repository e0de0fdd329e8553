"""After how many of its videos a comparison was decided, had they been looked at one after the other."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from vdmini_bench.compare.deltas import basis_of, check_alike, paired_records
from vdmini_bench.compare.result_sets import ResultSet
from vdmini_bench.errors import NothingMeasuredError
from vdmini_bench.results.records import Record
from vdmini_bench.results.sequential import SEEN_FIRST, Verdict, decide

# Fixed, so that nobody can look for an order that says what they want.
ORDER_SEED = 0


@dataclass(frozen=True)
class Decided:
    """One metric: what was decided of the second model against the first, and after how many of all samples.

    `difference` is that of all samples, in the metric's own direction: below 0 is worse.
    """

    model: str
    metric: str
    margin: float
    verdict: Verdict
    after: int
    samples: int
    difference: float

    def cells(self) -> list[str]:
        """What the table shows of it."""
        share = f"{self.after / self.samples:.0%}"
        return [
            self.model,
            self.metric,
            f"{self.difference:+.4f}",
            self.verdict,
            f"{self.after} of {self.samples}",
            share,
        ]

    def to_json(self) -> dict[str, Any]:
        """The object that `compare --sequential --json` prints."""
        return asdict(self)


def decide_result_sets(a: ResultSet, b: ResultSet, margin: float) -> list[Decided]:
    """Whether the second is no worse than the first by `margin`, sample by sample, for every metric whose samples pair.

    Raises:
        NotComparableError: as `compare_result_sets` does.
        NothingMeasuredError: no metric has as many samples in both as a decision needs.
    """
    pairs = [
        (left, right)
        for left, right in paired_records(a, b)
        if basis_of(left, right) == "paired blocks" and len(left.score.blocks) >= SEEN_FIRST
    ]
    for pair in pairs:
        check_alike(*pair)
    found = [_decide(left, right, margin) for left, right in pairs]
    if not found:
        raise NothingMeasuredError(
            f"{a.name} and {b.name} share no metric of {SEEN_FIRST} or more prompts: VBench's dimensions have them"
        )
    return found


def _decide(a: Record, b: Record, margin: float) -> Decided:
    differences = np.subtract(b.score.blocks, a.score.blocks) * (-1 if a.score.better == "lower" else 1)
    count = len(differences)
    drawn = differences[np.random.default_rng(ORDER_SEED).permutation(count)]
    # Scores between 0 and 1 that mostly tie are answers: the few that differ may come late.
    answers = bool(np.mean(differences == 0) > 0.5) and min(*a.score.blocks, *b.score.blocks) >= 0
    bounds = (-1.0, 1.0) if answers and max(*a.score.blocks, *b.score.blocks) <= 1 else None
    decision = decide(drawn, margin, bounds, population=count)
    return Decided(
        b.row.model, a.score.metric, margin, decision.verdict, decision.after, count, float(differences.mean())
    )
