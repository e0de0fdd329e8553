"""Run a suite on one part of its prompts after the other, until what they say of every model is enough."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vdmini_bench.compare.result_sets import ResultSet
from vdmini_bench.compare.until_decided import Decided, decide_all, paired_by_sample, paired_differences
from vdmini_bench.config.suite import Suite
from vdmini_bench.config.vbench import VBenchSpec, VBenchSuite
from vdmini_bench.errors import ExitCode, NothingMeasuredError, SuiteError
from vdmini_bench.report.page import write_report
from vdmini_bench.results.records import RUN_FILE, Record, baseline_of, read_records, read_run
from vdmini_bench.results.score import NO_MODELS, RESULTS_FILE, result_line, row_of
from vdmini_bench.results.store import Store
from vdmini_bench.results.table import wide_table
from vdmini_bench.runs.run import run_suite
from vdmini_bench.suites.kind import prepare_suite
from vdmini_bench.suites.vbench import ask_for_videos
from vdmini_bench.system.files import key_of, write_atomically
from vdmini_bench.system.tables import markdown_table

if TYPE_CHECKING:
    from vdmini_bench.runs.tasks import Place

# How many parts all prompts make, and how many prompts a part has at least: each loads every model anew.
PARTS, LEAST = 16, 8
# What stands in `run.json` for a run of this kind.
PATH = "until_decided"


@dataclass(frozen=True)
class Parts:
    """Into how many `parts` a suite's `prompts` go."""

    prompts: int
    parts: int

    def asked(self, number: int) -> int:
        """How many prompts the first so many parts have."""
        return sum(len(range(place, self.prompts, self.parts)) for place in range(number))

    def __str__(self) -> str:
        least, most = self.prompts // self.parts, self.asked(1)
        return f"up to {self.parts} parts of {most if least == most else f'{least} or {most}'} prompts"


@dataclass(frozen=True)
class Step:
    """What was decided after `prompts` of all prompts, `of` so many, metric by metric; see `Decided`.

    `problems` are what stopped the part's run, and `run_dir` is where its scores and those of all parts before are.
    """

    prompts: int
    of: int
    margin: float
    decided: tuple[Decided, ...]
    exit_code: ExitCode
    problems: tuple[str, ...]
    run_dir: Path

    @property
    def is_last(self) -> bool:
        """Whether every model's total, or its only metric, is decided, no prompt is left or something went wrong."""
        totals = {each.model: each.verdict for each in self.decided}
        return bool(self.problems) or self.prompts == self.of or "undecided" not in totals.values()

    def to_json(self) -> dict[str, Any]:
        """What `run.json` holds of it."""
        decided = [each.to_json() for each in self.decided]
        return {"prompts": self.prompts, "of": self.of, "margin": self.margin, "decided": decided}


@dataclass(frozen=True)
class Pooled:
    """A record of several parts, and how many of its blocks come from each; none where it is the last part's own."""

    record: Record
    parts: tuple[int, ...]


def whole_of(suite: Suite | VBenchSuite) -> VBenchSpec:
    """What a suite that can be run part by part scores; raises SuiteError for others."""
    if not isinstance(suite, VBenchSuite) or suite.profile.vbench.part is not None:
        raise SuiteError("--until decided is for a whole suite of kind vbench: FVD compares sets of clips, not clips")
    return suite.profile.vbench


def parts_of(vbench: VBenchSpec, store: Store) -> Parts:
    """Into how many parts all prompts go; raises as `ask_for_videos`."""
    prompts = len({video.prompt for video in ask_for_videos(vbench, store)[1]})
    return Parts(prompts, max(1, min(PARTS, prompts // LEAST)))


def run_until_decided(
    suite: Suite | VBenchSuite, load: Callable[[str], Suite | VBenchSuite], results: Path, margin: float,
    workers: int = 1, place: Place | None = None,
) -> Iterator[Step]:  # fmt: skip
    """Run a suite part by part; each step says what is decided so far: is a model no worse than the baseline?

    `load` gives the same suite of a part, for a text such as `3/16`. The leaderboard is left as it is: its rows are of
    all prompts.

    Raises:
        SuiteError: the suite is not scored prompt by prompt, or asks for a part itself.
        NothingMeasuredError: no metric pairs, as where models were trained several times.
        BenchError: as `run_suite`.
    """
    vbench = whole_of(suite)
    prepare_suite(suite, results)
    store = Store(results)
    parts = parts_of(vbench, store)
    folder, measured, steps = store.open_run(suite.name, suite.sha), [], []
    for number in range(1, parts.parts + 1):
        result = run_suite(load(f"{number}/{parts.parts}"), results, workers, place, listed=False)
        measured.append(read_records(result.run_dir))
        done = parts.asked(number)
        run, whole = read_run(result.run_dir), pooled(measured, vbench, done, parts.parts)
        decided = () if result.problems else _decide(whole, baseline_of(run), vbench, margin, done, parts.prompts)
        steps.append(Step(done, parts.prompts, margin, decided, result.exit_code, result.problems, folder))
        _write(folder, run | {"suite": suite.model_dump(), "status": result.status}, whole, steps)
        yield steps[-1]
        if steps[-1].is_last:
            return


def pooled(parts: Sequence[Sequence[Record]], vbench: VBenchSpec, prompts: int, of: int) -> list[Pooled]:
    """The last part's records, each of all the parts' `prompts` where it is a mean over prompts.

    What says something of a whole set of videos alone, as VBench's groups do, is left out; what a part could not
    measure stays as it is.
    """
    found = []
    for last in parts[-1]:
        _, mark, rest = last.score.protocol.partition(f"/part{len(parts)}/{of}")
        same = [each.score for part in parts for each in part if _is_of(each, last)]
        missing = next((score for score in same if score.status != "ok"), None)
        if not mark:
            found.append(Pooled(last, ()))
        elif missing is not None:
            found.append(Pooled(replace(last, score=missing, row=row_of(missing, asdict(last.row))), ()))
        elif all(score.blocks for score in same) and len(same) == len(parts):
            values = [value for score in same for value in score.blocks]
            error = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None
            count = sum(score.n for score in same)
            asked = key_of([score.protocol for score in same])
            identity = f"{vbench.identity(prompts * (vbench.samples_per_prompt or 1), asked)}/until{mark[5:]}{rest}"
            score = replace(
                last.score, protocol=identity, value=statistics.fmean(values), standard_error=error,
                n=count, n_expected=count, blocks=tuple(values),
            )  # fmt: skip
            row = row_of(score, asdict(last.row))
            found.append(Pooled(replace(last, score=score, row=row), tuple(len(each.blocks) for each in same)))
    return found


def _is_of(record: Record, other: Record) -> bool:
    return (record.score.model, record.score.metric) == (other.score.model, other.score.metric)


def _decide(
    whole: Sequence[Pooled], baseline: str, vbench: VBenchSpec, margin: float, done: int, prompts: int
) -> tuple[Decided, ...]:
    records = ResultSet(baseline, baseline, tuple(each.record for each in whole if each.parts))
    parts = {each.record.score.metric: each.parts for each in whole}
    differences = [
        paired_differences(pair, parts[metric], prompts if sum(parts[metric]) == done else None)
        for model in records.models
        if model != baseline and model not in NO_MODELS
        for pair in paired_by_sample(records.of(baseline), records.of(model))
        for metric in [pair[0].score.metric]
    ]
    if not differences:
        raise NothingMeasuredError(f"no model has a metric that pairs with that of {baseline}, prompt by prompt")
    return tuple(decide_all(differences, margin, vbench.mode if vbench.prompts == "official" else None))


def _write(folder: Path, run: dict[str, Any], whole: Sequence[Pooled], steps: Sequence[Step]) -> None:
    """Write the run's folder as that of any run, with the path of the decisions in `run.json`."""
    records = [each.record for each in whole]
    write_atomically(folder / RESULTS_FILE, "".join(result_line(each.score, each.row) for each in records))
    record = run | {PATH: [step.to_json() for step in steps]}
    write_atomically(folder / RUN_FILE, json.dumps(record, indent=1))
    write_atomically(folder / "table.md", markdown_table(*wide_table([each.row for each in records])) + "\n")
    write_report(folder)
