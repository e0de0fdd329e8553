"""The gate: a run's rows against a baseline's under thresholds. Pure: rows in, verdicts and an exit code out."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from vdmini_bench.compare.comparability import is_of_a_machine, what_must_agree
from vdmini_bench.config.thresholds import Threshold, Thresholds
from vdmini_bench.errors import ExitCode
from vdmini_bench.results.score import Row

# From this many runs on, the baseline's own spread says how much a rerun moves a number.
RUNS_FOR_SPREAD = 3
REFERENCES = ("reference", "baseline")

Outcome = Literal["ok", "improved", "regression", "incomplete", "unlike"]
# A regression that was shown is not undone by a metric that could not be judged.
PRECEDENCE: tuple[tuple[Outcome, ExitCode], ...] = (
    ("regression", ExitCode.REGRESSION),
    ("unlike", ExitCode.NOT_COMPARABLE),
    ("incomplete", ExitCode.INCOMPLETE),
)


@dataclass(frozen=True)
class Verdict:
    """One gated metric of one model. `threshold` is by how much it may be worse, in its unit; None where unknown."""

    model: str
    metric: str
    baseline: float | None
    value: float | None
    threshold: float | None
    verdict: Outcome
    reason: str
    unlike: tuple[str, ...] = ()


def exit_code(verdicts: Iterable[Verdict]) -> ExitCode:
    """How a gate ends: 1 for a regression, else 5 for what cannot be compared, else 3 for what is missing, else 0."""
    found = {verdict.verdict for verdict in verdicts}
    return next((code for outcome, code in PRECEDENCE if outcome in found), ExitCode.OK)


def has_baseline(rows: Sequence[Row], baseline: Sequence[Row]) -> bool:
    """Whether a baseline says anything of the suites of these rows."""
    return bool({row.suite for row in rows} & {row.suite for row in baseline})


def judge(
    rows: Sequence[Row], baseline: Sequence[Row], thresholds: Thresholds, allow_unlike: bool = False
) -> list[Verdict]:
    """Judge every metric of a run or its baseline that the thresholds name, in the order of models and thresholds.

    `baseline` may hold other suites and several machines: of each measurement, the rows of this machine count where
    there are any. Of several runs the mean counts, and from three on their spread is the noise of a rerun.

    Raises:
        SuiteError: the thresholds name a metric or a model that neither side has.
        BenchError: a number cannot be read.
    """
    suites = {(row.suite, row.profile) for row in rows}
    ours = [row for row in baseline if (row.suite, row.profile) in suites] or [
        # Of another profile only: unlike, and to be said so metric by metric.
        row for row in baseline if row.suite in {row.suite for row in rows}
    ]  # fmt: skip
    everything = (*rows, *ours)
    names = {row.model for row in everything}
    thresholds.check_names({row.metric for row in everything}, names | {row.role for row in everything})
    verdicts = []
    for model in dict.fromkeys(row.model for row in everything):
        roles = {row.role for row in everything if row.model == model}
        for metric, threshold in thresholds.metrics.items():
            if not _is_gated(model, roles, threshold, names):
                continue
            found = [row for row in rows if (row.model, row.metric) == (model, metric)]
            known = [row for row in ours if (row.model, row.metric) == (model, metric)]
            if found or known:
                verdicts.append(_judge(model, metric, found, known, threshold, allow_unlike))
    return [verdict for verdict in verdicts if verdict is not None]


def _is_gated(model: str, roles: set[str], threshold: Threshold, names: set[str]) -> bool:
    if threshold.models is None:
        return not roles & {*REFERENCES}
    # A name that is a model's means that model, and not its whole role.
    return any(name == model or (name in roles and name not in names) for name in threshold.models)


def _judge(
    model: str, metric: str, found: Sequence[Row], known: Sequence[Row], threshold: Threshold, allow_unlike: bool
) -> Verdict | None:
    """The verdict on one metric; None where neither side could measure it."""
    measured = [row for row in found if row.status == "ok"]
    usable = [row for row in known if row.status == "ok"]
    value = float(measured[-1].number("value")) if measured else None
    if {row.status for row in (*found, *known)} == {"unavailable"}:
        return None
    if not measured or not usable:
        reason = "neither the run nor the baseline measured it"
        if usable:
            status = f": it is {found[-1].status} ({found[-1].n} of {found[-1].n_expected})" if found else ""
            reason = f"the run has not measured it{status}; the baseline has; nothing is said of a regression"
        elif measured:
            status = f": there it is {known[-1].status}" if known else ""
            reason = f"the baseline does not have it{status}; take it up with --update"
        return Verdict(model, metric, _mean(usable) if usable else None, value, None, "incomplete", reason)
    row = measured[-1]
    like, unlike = _comparable(row, usable, threshold.machines == "any")
    if unlike and not allow_unlike:
        return Verdict(model, metric, _mean(like), value, None, "unlike", "; ".join(unlike), tuple(unlike))
    return _weigh(row, _without_itself(row, like), threshold, tuple(unlike))


def _comparable(row: Row, candidates: Sequence[Row], any_machine: bool) -> tuple[list[Row], list[str]]:
    """The baseline rows that a row is compared with, and how they differ from it in what should be equal."""
    left = list(candidates)
    unlike = []
    any_machine = any_machine or not is_of_a_machine(row.metric)
    for what, column in {"profile": "profile", "recipe": "recipe", **what_must_agree(row.metric)}.items():
        same = [each for each in left if getattr(each, column) == getattr(row, column)]
        if same:
            left = same
        elif not (column == "machine_id" and any_machine):
            latest = max(left, key=lambda each: each.date)
            unlike.append(_difference(what, column, latest, row))
    return left, unlike


def _difference(what: str, column: str, baseline: Row, row: Row) -> str:
    old, new = getattr(baseline, column) or "unknown", getattr(row, column) or "unknown"
    if column != "machine_id":
        return f"the {what} changed from {old} to {new}"
    return (
        f"the machine changed from {old} (GPU {baseline.gpu or 'unknown'}) to {new} (GPU {row.gpu or 'unknown'}):"
        " --update adds a baseline of this machine"
    )


def _without_itself(row: Row, rows: list[Row]) -> list[Row]:
    """The baseline without the very measurement that is judged, unless there is no other."""
    others = [each for each in rows if (each.run_id, each.date, each.value) != (row.run_id, row.date, row.value)]
    return others or rows


def _weigh(row: Row, baseline: list[Row], threshold: Threshold, unlike: tuple[str, ...]) -> Verdict:
    value, was = float(row.number("value")), _mean(baseline)
    change = value - was
    worse = {"lower": change, "higher": -change}.get(row.better, abs(change))
    noise = _noise(row, baseline)
    allowed = []
    if threshold.absolute is not None:
        allowed.append((threshold.absolute, f"{threshold.absolute:g} absolute"))
    if threshold.relative is not None:
        allowed.append((threshold.relative * abs(was), f"{threshold.relative:.3g} of the baseline"))
    if threshold.standard_errors is not None and noise is not None:
        amount, source = noise
        text = f"{threshold.standard_errors:g} standard errors of {amount:.3g} ({source})"
        allowed.append((threshold.standard_errors * amount, text))
    if not allowed:
        reason = "no standard error is known of it: give absolute or relative as well"
        return Verdict(row.model, row.metric, was, value, None, "incomplete", reason, unlike)
    limit, rule = max(allowed)
    direction = "differs" if row.better == "neither" else "worse" if worse > 0 else "better"
    reason = f"{direction} by {abs(worse):.4g}; {limit:.4g} allowed: {rule}"
    outcome: Outcome = "regression" if worse > limit else "improved" if -worse > limit else "ok"
    if worse == 0:
        reason = "as in the baseline"
    return Verdict(row.model, row.metric, was, value, limit, outcome, reason, unlike)


def _noise(row: Row, baseline: Sequence[Row]) -> tuple[float, str] | None:
    """The standard error of the difference: from both errors or from the spread of the baseline's runs, the larger."""
    known = []
    if row.se and all(each.se for each in baseline):
        own = math.hypot(*(each.number("se") for each in baseline)) / len(baseline)
        known.append((math.hypot(row.number("se"), own), "within the runs"))
    if len(baseline) >= RUNS_FOR_SPREAD:
        spread = statistics.stdev(each.number("value") for each in baseline)
        # As a prediction: the mean of the runs is itself uncertain.
        known.append((spread * math.sqrt(1 + 1 / len(baseline)), f"between {len(baseline)} runs"))
    return max(known, default=None)


def _mean(rows: Sequence[Row]) -> float:
    return statistics.fmean(row.number("value") for row in rows)
