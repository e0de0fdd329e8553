"""Compare two models of one run, metric by metric, paired where their samples pair."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vdmini_bench.errors import BenchError, NotComparableError, NothingMeasuredError
from vdmini_bench.measurement import Score
from vdmini_bench.stats import median_difference_interval, paired_interval
from vdmini_bench.store import Store
from vdmini_bench.vbench.dimensions import DIMENSIONS, FILTERED

RESULTS_FILE = "results.jsonl"
# Of these the official protocol scores some of the videos only, of one model others than of another.
LEAVES_OUT = {f"vbench_{name}" for name, dimension in DIMENSIONS.items() if dimension.may_skip or name == FILTERED}


@dataclass(frozen=True)
class Delta:
    """One metric of two models: values, difference b - a with its 95 % interval, ratio b / a and a verdict in words."""

    metric: str
    protocol: str
    a: float
    b: float
    delta: float
    ratio: float | None
    interval: tuple[float, float] | None
    verdict: str

    def to_json(self) -> dict[str, Any]:
        """The object that `compare --json` prints for a metric."""
        return {
            "metric": self.metric,
            "protocol": self.protocol,
            "a": self.a,
            "b": self.b,
            "delta": self.delta,
            "ratio": self.ratio,
            "ci": None if self.interval is None else list(self.interval),
            "verdict": self.verdict,
        }


def latest_run(store: Store, suite: str | None = None) -> Path:
    """The newest finished run folder, of one suite when given.

    Raises:
        NothingMeasuredError: there is none.
    """
    for folder in reversed(store.runs()):
        try:
            record = json.loads((folder / "run.json").read_text())
            status, name = record["status"], record["suite"]["name"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise BenchError(f"{folder / 'run.json'} cannot be read ({error}); delete that run's folder") from error
        if status != "running" and suite in (None, name):
            return folder
    raise NothingMeasuredError(
        f"no finished run under {store.root / 'runs'}; start one: vdmini-bench run suites/ucf101.yaml"
    )


def read_scores(run: Path, model: str) -> dict[str, Score]:
    """A model's scores in a run folder by metric.

    Raises:
        NothingMeasuredError: the run has none of this model.
    """
    scores = _all_scores(run)
    found = {score.metric: score for score in scores if score.model == model}
    if not found:
        known = ", ".join(sorted({score.model for score in scores})) or "none"
        raise NothingMeasuredError(f"{run.name} has no results of {model!r}; it has {known}")
    return found


def _all_scores(folder: Path) -> list[Score]:
    try:
        lines = (folder / RESULTS_FILE).read_text().splitlines()
        return [Score.from_json(json.loads(line)) for line in lines]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BenchError(f"{folder / RESULTS_FILE} cannot be read ({error}); run the suite again") from error


def is_scored_folder(name: str) -> bool:
    """Whether a name is the folder that `score` left rather than a model of a run."""
    return (Path(name) / RESULTS_FILE).is_file()


def read_one(run: Path | None, name: str) -> dict[str, Score]:
    """The scores of a model of a run, or of the videos of a folder that `score` left.

    Raises:
        NothingMeasuredError: the run has none of this model.
    """
    if not is_scored_folder(name):
        assert run is not None
        return read_scores(run, name)
    folder = Path(name)
    return {score.metric: score for score in _all_scores(folder)}


def compare_models(run: Path | None, a: str, b: str) -> list[Delta]:
    """Compare all metrics that both models have; each may also be a folder that `score` left.

    Raises:
        NotComparableError: a metric's protocol, version or sample count differs, or one side is incomplete.
    """
    first, second = read_one(run, a), read_one(run, b)
    # What neither side could measure says nothing about either.
    shared = [
        metric
        for metric in first
        if metric in second and not first[metric].status == second[metric].status == "unavailable"
    ]
    if not shared:
        raise NothingMeasuredError(f"{a} and {b} share no metric" + (f" in {run.name}" if run is not None else ""))
    return [_compare(first[metric], second[metric]) for metric in shared]


def _compare(a: Score, b: Score) -> Delta:
    if a.value is None or b.value is None:
        raise NotComparableError(f"{a.metric}: {a.model} is {a.status}, {b.model} is {b.status}; mend and run again")
    count = "n_expected" if a.metric in LEAVES_OUT else "n"
    for what, left, right in (
        ("protocol", a.protocol, b.protocol),
        ("metric version", a.metric_version, b.metric_version),
        ("number of samples", getattr(a, count), getattr(b, count)),
    ):
        if left != right:
            raise NotComparableError(f"{a.metric}: the {what} differs ({a.model} {left}, {b.model} {right})")
    interval = None
    if len(a.blocks) == len(b.blocks) >= 2:
        if a.metric.startswith("latency"):
            interval = median_difference_interval(a.blocks, b.blocks)
        else:
            interval = paired_interval(a.blocks, b.blocks)[1:]
    ratio = b.value / a.value if a.value else None
    return Delta(a.metric, a.protocol, a.value, b.value, b.value - a.value, ratio, interval, _verdict(a, b, interval))


def _verdict(a: Score, b: Score, interval: tuple[float, float] | None) -> str:
    assert a.value is not None
    assert b.value is not None
    if interval is not None and interval[0] <= 0 <= interval[1]:
        return "no difference shown"
    if a.value == b.value:
        return "equal"
    if a.better == "neither":
        return f"{b.model} differs"
    improved = (b.value < a.value) == (a.better == "lower")
    return f"{b.model} is better" if improved else f"{b.model} is worse"
