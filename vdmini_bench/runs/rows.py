"""Scores of finished jobs as leaderboard rows: what was measured, of which model, where and when."""

from __future__ import annotations

import hashlib
import json
import math
import statistics
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from vdmini.checkpoint import checkpoint_sha256
from vdmini.cost import count_parameters
from vdmini.models.loading import load_model
from vdmini.models.registry import DENOISERS
from vdmini_bench.config.suite import CommonSuite
from vdmini_bench.config.vbench_dimensions import DIMENSIONS
from vdmini_bench.errors import BenchError, ExitCode
from vdmini_bench.results.score import (
    RESULTS_FILE,
    SCHEMA,
    SCORES,
    Better,
    Row,
    Score,
    Status,
    number_text,
    origin_of,
    record_of,
    result_line,
    role_of,
    row_of,
)
from vdmini_bench.results.store import SUMMARY
from vdmini_bench.suites.context import SuiteContext
from vdmini_bench.suites.job_graph import Job, Measured


class Publisher:
    """Makes the rows of a run as its jobs end: a row's scores when the last training of its model is measured."""

    def __init__(self, context: SuiteContext, run_dir: Path) -> None:
        self._context, self._file = context, run_dir / RESULTS_FILE
        self._waiting = [*context.graph.measured]
        self._ended: dict[str, BenchError | None] = {}

    def publish(self, job: Job, problem: BenchError | None) -> list[Row]:
        """The rows that can be made now that a job has ended, also written to the run's `results.jsonl`."""
        self._ended[job.name] = problem
        ready = [each for each in self._waiting if {*each.jobs} <= {*self._ended}]
        self._waiting = [each for each in self._waiting if each not in ready]
        return [row for each in ready for row in self._rows(each)]

    def _rows(self, measured: Measured) -> list[Row]:
        context, problems = self._context, [problem for name in measured.jobs if (problem := self._ended[name])]
        if problems:
            score = _missing_score(context, measured, problems[0])
            scores, notes = [score], {score.metric: getattr(problems[0], "note", str(problems[0]))}
            record = {**record_of(scores, context.fingerprint, notes), "date": "", "run_id": context.run_id}
        else:
            records = [json.loads((context.folder(name) / SCORES).read_text()) for name in measured.jobs]
            trainings = [[*map(Score.from_json, each["scores"])] for each in records]
            scores, record = over_trainings(measured.row, trainings), records[-1]
        rows = [_row(context, score, record) for score in scores]
        with self._file.open("a") as file:
            file.writelines(map(result_line, scores, rows))
        return rows


def over_trainings(row: str, trainings: Sequence[Sequence[Score]]) -> list[Score]:
    """A row's scores, metric by metric: of several trainings the mean, its standard error, and each one's value."""
    if len(trainings) == 1:
        return [replace(score, model=row) for score in trainings[0]]
    found = []
    for scores in zip(*trainings, strict=True):
        values, lacking = [each.value for each in scores], next((each for each in scores if each.status != "ok"), None)
        mean = error = None
        if lacking is None:
            mean, error = statistics.fmean(values), statistics.stdev(values) / math.sqrt(len(values))
        found.append(
            replace(
                lacking or scores[0], model=row, value=mean, standard_error=error, n=sum(each.n for each in scores),
                n_expected=sum(each.n_expected for each in scores), trainings=len(scores),
                blocks=() if lacking else tuple(values),
            )
        )  # fmt: skip
    return found


def _missing_score(context: SuiteContext, measured: Measured, problem: BenchError) -> Score:
    job = context.jobs[measured.jobs[0]]
    status: Status = "incomplete" if problem.exit_code == ExitCode.INCOMPLETE else "failed"
    judge = job.subject.rpartition(" ")[2]
    metric = {
        "measure": "fvd",
        "judge": f"vbench_{judge}" if judge in DIMENSIONS else f"embedded-{judge}",
        "total": "vbench_total",
        "fidelity": "psnr",
        "count": "params_m",
        "time": "latency_end_to_end",
    }[job.stage]
    better: Better = "lower" if job.stage in ("measure", "count", "time") else "higher"
    expected = len(context.clip_names)
    return Score(measured.row, metric, "", context.protocol_name, None, "", better, None, 0, expected, status)


def _row(context: SuiteContext, score: Score, record: dict[str, Any]) -> Row:
    profile = context.suite.profile
    origin = {**measured_under(context.suite, score, record), "role": role_of(score.model, profile.baseline)}
    if score.model in profile.models:
        origin["recipe"] = "; ".join(profile.measures[score.model])
        if score.status == "ok":
            origin["note"] = "; ".join(filter(None, (origin["note"], _decoder_note(context, score.model))))
            weights = context.weights_folder(score.model)
            origin |= {
                "checkpoint_sha": _checkpoint(context, score.model)[:16],
                "params_m": number_text(denoiser_parameters(weights) / 1e6),
            }
    return row_of(score, origin)


def _decoder_note(context: SuiteContext, row: str) -> str:
    """By which network a row's decoder was fine-tuned, where it was."""
    decoder = context.graph.models[row].decoder
    summary = {} if decoder is None else json.loads((context.folder(decoder) / SUMMARY).read_text(encoding="utf-8"))
    return f"decoder fine-tuned by {summary['perceptual']}" if "perceptual" in summary else ""


def _checkpoint(context: SuiteContext, row: str) -> str:
    """The identity of a row's weights, with its decoder's where that is its own; of several trainings the first one."""
    model, folder = context.graph.models[row], context.weights_folder(row)
    sha = checkpoint_sha256(folder) if model.weights else model.teacher[1]
    if model.decoder is None:
        return sha
    return hashlib.sha256(f"{sha} {checkpoint_sha256(context.folder(model.decoder) / 'vae')}".encode()).hexdigest()


@cache
def denoiser_parameters(folder: Path) -> int:
    """The weights of all denoisers in a folder, of a second expert too, counted without reading any."""
    parts = [part for part in DENOISERS if (folder / part).is_dir()] or ["."]
    return sum(count_parameters(load_model(folder / part, device="meta").denoiser) for part in parts)


def measured_under(suite: CommonSuite, score: Score, record: dict[str, Any]) -> dict[str, str]:
    """What a row says of the suite that its score was measured under, and of when and by what, as the record has it."""
    return {
        **origin_of(record),
        "schema": str(SCHEMA),
        "suite": suite.name,
        "suite_version": str(suite.version),
        "suite_sha": suite.sha,
        "profile": suite.profile_name,
        "run_id": record["run_id"],
        "note": "; ".join(filter(None, (suite.profile.stand_in, record["notes"].get(score.metric)))),
    }
