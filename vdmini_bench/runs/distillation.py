"""Distil what a suite or a configuration asks for: a run of three stages, and what they leave."""

from __future__ import annotations

import csv
import json
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vdmini_bench.config.distillation import DistillConfig
from vdmini_bench.config.models import DistillSpec
from vdmini_bench.config.suite import Suite
from vdmini_bench.config.vbench import VBenchSuite
from vdmini_bench.distill.loss_log import LOSSES
from vdmini_bench.distill.trainer import settings_of
from vdmini_bench.errors import SuiteError
from vdmini_bench.results.store import STUDENT, SUMMARY, Store
from vdmini_bench.runs.execution import execute_needed
from vdmini_bench.suites.context import RunContext
from vdmini_bench.suites.kind import check_missing, kind_of, prepare_suite
from vdmini_bench.system.launch import process_count

# One step's losses say little: the last ones are averaged.
LAST_STEPS = 50


def open_distillation(
    asked: Suite | VBenchSuite | DistillConfig, results: Path, *, write: bool, model: str | None = None
) -> Distillation:
    """The jobs of a distillation alone; with `write` what a suite draws is drawn first.

    `model` is the row of a suite that is distilled, the first one that is when None.

    Raises:
        MissingAssetsError: something has to be imported by hand.
        SuiteError: the teacher, the plan or the clips are missing or do not fit.
        BenchError: the results folder cannot be written.
    """
    row, distill = _chosen(asked, model)
    try:
        settings_of(distill).share(process_count())
    except ValueError as error:
        raise SuiteError(f"distill: {error}") from error
    if write:
        kind = prepare_suite(asked, results, measured=False)
    else:
        kind = kind_of(asked)
        check_missing(asked, kind, measured=False)
    context = kind.open(Store(results), measured=False, remember=write)
    job = context.graph.models[row].distill if row else "distill"
    assert job is not None
    return Distillation(context, job)


@dataclass(frozen=True)
class Distillation:
    """One distillation of a context, by the name of its job."""

    context: RunContext
    job: str

    @property
    def subject(self) -> str:
        """What the job distils."""
        return self.context.jobs[self.job].subject


def _chosen(asked: Suite | VBenchSuite | DistillConfig, model: str | None) -> tuple[str, DistillSpec]:
    """The row that is distilled, empty for a configuration of its own, and how."""
    if isinstance(asked, DistillConfig):
        if model is not None:
            raise SuiteError(f"--model {model}: a distillation's own configuration has one student: leave it out")
        return "", asked.distill
    trained = {row: spec.distill for row, spec in asked.profile.models.items() if spec.distill is not None}
    if not trained or (model is not None and model not in trained):
        named = "no model" if model is None else f"--model {model}: no such model"
        raise SuiteError(
            f"{named} of suite {asked.name!r} is distilled; those that are: {', '.join(trained) or 'none'}"
        )
    row = model or next(iter(trained))
    return row, trained[row]


@dataclass(frozen=True)
class Outcome:
    """What a distillation left: the student's folder, what it took, and the last steps' mean losses."""

    student: Path
    losses_file: Path
    summary: dict[str, Any]
    losses: dict[str, float]
    averaged_steps: int
    ran: tuple[str, ...]
    cached: tuple[str, ...]

    def cost_per_1000_steps(self, price_per_hour: float) -> float:
        """What a thousand steps cost where all processes together cost `price_per_hour`."""
        return float(self.summary["hours_per_1000_steps"]) * price_per_hour

    def to_json(self) -> dict[str, Any]:
        """The object that `distill --json` prints."""
        return {
            "student": str(self.student),
            "losses_file": str(self.losses_file),
            **self.summary,
            "losses": self.losses,
            "losses_averaged_over": self.averaged_steps,
            "jobs": {"ran": list(self.ran), "cached": list(self.cached)},
        }


def run_distillation(distillation: Distillation) -> Outcome:
    """Encode, prune and distil what is not done yet.

    Raises:
        BenchError: a job failed, with its name.
    """
    executed = execute_needed(distillation.context, [distillation.job])
    folder = distillation.context.folder(distillation.job)
    summary = json.loads((folder / SUMMARY).read_text(encoding="utf-8"))
    with (folder / LOSSES).open(newline="", encoding="utf-8") as file:
        last = list(csv.DictReader(file))[-LAST_STEPS:]
    return Outcome(
        student=folder / STUDENT,
        losses_file=folder / LOSSES,
        summary=summary,
        losses={name: statistics.fmean(float(row[name]) for row in last) for name in last[0] if name != "step"},
        averaged_steps=len(last),
        ran=tuple(each.job.name for each in executed if not each.cached),
        cached=tuple(each.job.name for each in executed if each.cached),
    )
