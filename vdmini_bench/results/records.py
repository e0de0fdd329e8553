"""What a run or a scoring left, read back: each score with its blocks and where it comes from."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from vdmini_bench.errors import BenchError, SuiteError
from vdmini_bench.results.score import COLUMNS, RESULTS_FILE, TEACHER, Better, Row, Score, Status, role_of, row_of
from vdmini_bench.system.text_files import read_text

RUN_FILE = "run.json"
CONDITIONS = ("condition_clips", "asked")
# Where `run.json` has what all rows of a run share.
ORIGIN = {
    "suite": ("suite", "name"), "suite_version": ("suite", "version"), "suite_sha": ("suite_sha",),
    "profile": ("suite", "profile_name"), "machine_id": ("fingerprint", "machine_id"), "gpu": ("fingerprint", "gpu"),
    "torch": ("fingerprint", "versions", "torch"), "commit": ("fingerprint", "commit"),
}  # fmt: skip


@dataclass(frozen=True)
class Record:
    """A score, its leaderboard row, its run's name, and what its clips were sampled from, seeds too, where known."""

    score: Score
    row: Row
    run: str
    conditions: str | None


def is_file(path: Path) -> bool:
    """Whether there is such a file; no for what cannot be a path at all, such as a name that is too long."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def read_records(folder: Path) -> list[Record]:
    """All scores of a run folder, or of the folder that `score` left.

    Raises:
        BenchError: a file in it cannot be read.
    """
    run = read_run(folder) if (folder / RUN_FILE).exists() else {}
    beside = _origin_of_run(run, folder.name)
    asked = (part_of(run, "inputs", name) for name in CONDITIONS)
    digest = next((digest for digest in asked if isinstance(digest, str)), None)
    seed = part_of(run, "suite", "profile", "sample", "seed") or 0
    conditions = None if digest is None else f"{digest}, seed {seed}"
    records = []
    try:
        lines = read_text(folder / RESULTS_FILE).split("\n")
        for data in map(json.loads, filter(str.strip, lines)):
            score = Score.from_json(data)
            _check(score)
            given = data.get("origin", {})
            origin = {**beside, **{name: str(given[name]) for name in COLUMNS if name in given}}
            origin["role"] = origin.get("role") or role_of(score.model, baseline_of(run))
            origin["recipe"] = origin.get("recipe") or "; ".join(measures_of(run).get(score.model, ()))
            records.append(Record(score, row_of(score, origin), folder.name, conditions))
    except (SuiteError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BenchError(f"{folder / RESULTS_FILE} cannot be read ({error}); run the suite again") from error
    return records


def read_run(folder: Path) -> dict[str, Any]:
    """The `run.json` of a run folder: at least its `status` and its `suite` with a name.

    Raises:
        BenchError: it cannot be read.
    """
    path = folder / RUN_FILE
    try:
        record = json.loads(read_text(path))
        if not isinstance(record["status"], str) or not isinstance(record["suite"]["name"], str):
            raise TypeError("status and suite.name must be texts")
    except (SuiteError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise BenchError(f"{path} cannot be read ({error}); delete that run's folder") from error
    return dict(record)


def _check(score: Score) -> None:
    numbers = [number for number in (score.value, score.standard_error, *score.blocks) if number is not None]
    if not all(type(number) in (int, float) and math.isfinite(number) for number in numbers):
        raise ValueError(f"a number of {score.metric} is not finite")
    if type(score.trainings) is not int or score.trainings < 1:
        raise ValueError(f"the trainings of {score.metric} are no count")
    texts = (score.model, score.metric, score.metric_version, score.protocol, score.unit)
    if not all(isinstance(text, str) for text in texts):
        raise TypeError("names, versions, protocols and units must be texts")
    if score.status not in get_args(Status) or score.better not in get_args(Better):
        raise ValueError(f"{score.metric} has status {score.status!r} and better {score.better!r}")


def part_of(record: object, *path: str) -> Any:
    """A part of what `run.json` holds, None where it is missing."""
    for key in path:
        record = record.get(key) if isinstance(record, dict) else None
    return record


def baseline_of(run: Mapping[str, Any]) -> str:
    """The row that all others of a run are compared with: its teacher where `run.json` names none."""
    named = part_of(run, "baseline")
    return named if isinstance(named, str) else TEACHER


def measures_of(run: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """What made each model of a run, in the suite's order, as texts `kind: settings`; empty for runs of before."""
    models = part_of(run, "models")
    made = {name: part_of(model, "measures") for name, model in (models if isinstance(models, dict) else {}).items()}
    return {name: tuple(map(str, texts if isinstance(texts, list) else ())) for name, texts in made.items()}


def _origin_of_run(run: Mapping[str, Any], name: str) -> dict[str, str]:
    """What all rows of a run share, where its lines do not say it."""
    found = {column: part_of(run, *path) for column, path in ORIGIN.items()}
    return {column: str(value) for column, value in found.items() if value is not None} | {"run_id": name}
