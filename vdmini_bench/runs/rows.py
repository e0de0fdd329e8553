"""Scores of finished jobs as leaderboard rows: what was measured, of which model, where and when."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vdmini_bench.results.score import SCHEMA

if TYPE_CHECKING:
    from vdmini_bench.config.suite import CommonSuite

import json
from functools import cache
from pathlib import Path
from typing import Any

from vdmini_bench.config.vbench_dimensions import DIMENSIONS
from vdmini_bench.errors import BenchError, ExitCode
from vdmini_bench.models.source import model_folder
from vdmini_bench.results.score import (
    RESULTS_FILE,
    ROLES,
    SCORES,
    Better,
    Row,
    Score,
    Status,
    number_text,
    result_line,
    row_of,
)
from vdmini_bench.suites.context import SuiteContext
from vdmini_bench.suites.jobs import GENERATED, Job

MEASURING = ("measure", "judge", "total", "time")
LOWER: Better = "lower"
HIGHER: Better = "higher"


def publish_rows(bench: SuiteContext, job: Job, run_dir: Path, problem: BenchError | None) -> list[Row]:
    """The leaderboard rows of a job that measures, also written to the run's `results.jsonl`."""
    if job.stage not in MEASURING:
        return []
    if problem is None:
        record = json.loads((bench.folder(job.name) / SCORES).read_text())
        scores = [Score.from_json(score) for score in record["scores"]]
    else:
        scores = [_missing_score(bench, job, problem)]
        record = {"notes": {scores[0].metric: problem.note}}
    rows = [_row(bench, score, record) for score in scores]
    with (run_dir / RESULTS_FILE).open("a") as file:
        file.writelines(map(result_line, scores, rows))
    return rows


def _missing_score(bench: SuiteContext, job: Job, problem: BenchError) -> Score:
    status: Status = "incomplete" if problem.exit_code == ExitCode.INCOMPLETE else "failed"
    model, _, judge = job.subject.partition(" ")
    metric, better = {
        "measure": ("fvd", LOWER),
        "judge": (f"vbench_{judge}" if judge in DIMENSIONS else f"embedded-{judge}", HIGHER),
        "total": ("vbench_total", HIGHER),
        "time": ("latency_end_to_end", LOWER),
    }[job.stage]
    expected = len(bench.clip_names)
    return Score(model or "student", metric, "", bench.protocol_name, None, "", better, None, 0, expected, status)


def _row(bench: SuiteContext, score: Score, record: dict[str, Any]) -> Row:
    suite, fingerprint = bench.suite, bench.fingerprint
    generated = score.model in GENERATED
    origin = {
        **suite_cells(suite),
        "role": ROLES[score.model],
        "checkpoint_sha": _checkpoint_sha(bench, score.model)[:16] if generated and score.status == "ok" else "",
        "params_m": number_text(_params_m(bench, score.model)) if generated and score.status == "ok" else "",
        "machine_id": str(record.get("machine_id", fingerprint.machine_id)),
        "gpu": str(record.get("gpu", fingerprint.gpu)),
        "torch": str(record.get("torch", fingerprint.versions["torch"])),
        "commit": str(record.get("commit", fingerprint.commit)),
        "dirty": str(record.get("dirty", fingerprint.dirty)).lower(),
        "date": str(record.get("date", "")),
        "run_id": str(record.get("run_id", bench.run_id)),
        "note": "; ".join(filter(None, (suite.profile.stand_in, record["notes"].get(score.metric)))),
    }
    return row_of(score, origin)


def _checkpoint_sha(bench: SuiteContext, model: str) -> str:
    from vdmini import checkpoint_sha256

    return bench.inputs.teacher if model == "teacher" else checkpoint_sha256(bench.model_source(model))


def _params_m(bench: SuiteContext, model: str) -> float:
    """Parameters of a model's denoisers in millions: those of a second expert too."""
    return denoiser_parameters(model_folder(bench.model_source(model))) / 1e6


@cache
def denoiser_parameters(folder: Path) -> int:
    """The number of weights of all denoisers in a folder, counted without reading any: as a job left it, or whole."""
    from vdmini.cost import count_parameters
    from vdmini.models.loading import load_model
    from vdmini.models.registry import DENOISERS

    parts = [part for part in DENOISERS if (folder / part).is_dir()] or ["."]
    return sum(count_parameters(load_model(folder / part, device="meta").denoiser) for part in parts)


def suite_cells(suite: CommonSuite) -> dict[str, str]:
    """What a row says of the suite that its score was measured under, and of the row's own form."""
    return {
        "schema": str(SCHEMA),
        "suite": suite.name,
        "suite_version": str(suite.version),
        "suite_sha": suite.sha,
        "profile": suite.profile_name,
    }
