"""Scores of finished jobs as leaderboard rows: what was measured, of which model, where and when."""

from __future__ import annotations

import json
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
from vdmini_bench.models.source import model_folder
from vdmini_bench.results.score import (
    RESULTS_FILE,
    ROLES,
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
    row_of,
)
from vdmini_bench.suites.context import SuiteContext
from vdmini_bench.suites.jobs import GENERATED, Job

MEASURING = ("measure", "judge", "total", "time")


def publish_rows(context: SuiteContext, job: Job, run_dir: Path, problem: BenchError | None) -> list[Row]:
    """The leaderboard rows of a job that measures, also written to the run's `results.jsonl`."""
    if job.stage not in MEASURING:
        return []
    if problem is None:
        record = json.loads((context.folder(job.name) / SCORES).read_text())
        scores = [Score.from_json(score) for score in record["scores"]]
    else:
        scores = [_missing_score(context, job, problem)]
        notes = {scores[0].metric: problem.note}
        record = {**record_of(scores, context.fingerprint, notes), "date": "", "run_id": context.run_id}
    rows = [_row(context, score, record) for score in scores]
    with (run_dir / RESULTS_FILE).open("a") as file:
        file.writelines(map(result_line, scores, rows))
    return rows


def _missing_score(context: SuiteContext, job: Job, problem: BenchError) -> Score:
    status: Status = "incomplete" if problem.exit_code == ExitCode.INCOMPLETE else "failed"
    model, _, judge = job.subject.partition(" ")
    metric = {
        "measure": "fvd",
        "judge": f"vbench_{judge}" if judge in DIMENSIONS else f"embedded-{judge}",
        "total": "vbench_total",
        "time": "latency_end_to_end",
    }[job.stage]
    better: Better = "lower" if job.stage in ("measure", "time") else "higher"
    expected = len(context.clip_names)
    return Score(model or "student", metric, "", context.protocol_name, None, "", better, None, 0, expected, status)


def _row(context: SuiteContext, score: Score, record: dict[str, Any]) -> Row:
    origin = {**measured_under(context.suite, score, record), "role": ROLES[score.model]}
    if score.model in GENERATED and score.status == "ok":
        source = context.model_source(score.model)
        sha = context.inputs.teacher if score.model == "teacher" else checkpoint_sha256(source)
        origin |= {"checkpoint_sha": sha[:16], "params_m": number_text(denoiser_parameters(model_folder(source)) / 1e6)}
    return row_of(score, origin)


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
