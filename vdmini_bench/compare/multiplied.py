"""What multiplies: a row built of several measures beside what each of them gives alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from vdmini_bench.compare.deltas import NORMAL_95, compare_result_sets
from vdmini_bench.compare.pareto import added_measures, main_quality, measured_scores
from vdmini_bench.compare.result_sets import ResultSet
from vdmini_bench.results.records import Record
from vdmini_bench.results.table import TITLES

# A value and half of its 95 % interval, None where that is not known.
Estimate = tuple[float, float | None]


def multiplied_lines(
    records: Sequence[Record], models: Mapping[str, Sequence[str]], baseline: str
) -> tuple[list[str], list[list[str]]]:
    """The header, and a line for each row of several measures that each have a row of their own; no lines where none.

    Speed-ups are end to end, losses differences of the main quality to the baseline, more is worse; intervals are of
    95 %. Single rows are taken as independent: errors of logarithms, and of losses, add in squares. `models` are the
    measures of each row, as `records.measures_of` gives them.
    """
    added, quality = added_measures(models, baseline), main_quality(records)
    single: dict[str, str] = {}
    for name, measures in added.items():
        if len(measures) == 1:
            single.setdefault(measures[0], name)
    speedups, losses = _speedups(records), _losses(records, quality, baseline)
    lines = []
    for name, measures in added.items():
        if len(measures) > 1 and {*measures} <= {*single}:
            parts = [single[measure] for measure in measures]
            pairs = [(found.get(name), _sum([found.get(part) for part in parts])) for found in (speedups, losses)]
            (fast, product), (lost, total) = pairs
            cells = [*(_cell(each, "x{:.3g}", math.exp) for each in (fast, product))]
            lines.append([name, " + ".join(parts), *cells, _cell(lost, "{:+.3g}"), _cell(total, "{:+.3g}")])
    title = TITLES.get(quality or "", quality or "quality")
    header = ["row", "built of", "speed-up", "product of single speed-ups", f"loss in {title}", "sum of single losses"]
    return header, lines


def _speedups(records: Sequence[Record]) -> dict[str, Estimate]:
    """The logarithms of the speed-ups end to end by model."""
    found = {}
    for (model, metric), score in measured_scores(records).items():
        if metric == "speedup_end_to_end" and score.value and score.value > 0:
            error = score.standard_error
            found[model] = math.log(score.value), None if error is None else NORMAL_95 * error / score.value
    return found


def _losses(records: Sequence[Record], quality: str | None, baseline: str) -> dict[str, Estimate]:
    """By model how much worse it is than the baseline."""
    kept = tuple(each for each in records if each.score.metric == quality and each.score.value is not None)
    judged = ResultSet("", "", kept)
    found: dict[str, Estimate] = {}
    for model in judged.models if baseline in judged.models else ():
        for delta in compare_result_sets(judged.of(baseline), judged.of(model), allow_unlike=True):
            sign = -1.0 if kept[0].score.better == "higher" else 1.0
            half = None if delta.interval is None else (delta.interval[1] - delta.interval[0]) / 2
            found[model] = sign * (delta.delta or 0.0), half
    return found


def _sum(parts: Sequence[Estimate | None]) -> Estimate | None:
    known = [part for part in parts if part is not None]
    halves = [half for _, half in known if half is not None]
    if len(known) < len(parts):
        return None
    return math.fsum(value for value, _ in known), math.hypot(*halves) if len(halves) == len(parts) else None


def _cell(estimate: Estimate | None, shown: str, scale: Callable[[float], float] = float) -> str:
    if estimate is None:
        return "-"
    value, half = estimate
    # Zero has no sign of its own.
    words = [shown.format(scale(each) + 0.0) for each in (value, value - (half or 0.0), value + (half or 0.0))]
    return words[0] if half is None else f"{words[0]} ({words[1]} to {words[2]})"
