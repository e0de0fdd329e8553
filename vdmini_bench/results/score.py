"""One measured number with everything needed to say what it means and how to get it again."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from typing import Any, Literal

from vdmini_bench.errors import BenchError
from vdmini_bench.system.fingerprint import Fingerprint

SCHEMA = 1
# Beyond any measurement, and far enough from what a float cannot hold.
LARGEST = 1e100
# In the folder of a run or of scored videos: one line a score.
RESULTS_FILE = "results.jsonl"
# In the folder of a job: its scores, with when and on what they were measured.
SCORES = "scores.json"

# Between the name of the package that brought a metric and its version there; versions of ours have none.
OF_PACKAGE = ":"

Status = Literal["ok", "incomplete", "failed", "unavailable"]
Better = Literal["lower", "higher", "neither"]


@dataclass(frozen=True)
class Score:
    """What a stage measured: a value (None unless status is ok), its standard error and its block values.

    Of several `trainings` the blocks are the means of each, in the order of their seeds, and not blocks of clips.
    """

    model: str
    metric: str
    metric_version: str
    protocol: str
    value: float | None
    unit: str
    better: Better
    standard_error: float | None
    n: int
    n_expected: int
    status: Status
    blocks: tuple[float, ...] = ()
    trainings: int = 1

    def to_json(self) -> dict[str, Any]:
        """As plain JSON data."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Score:
        """Read what `to_json` wrote, of before `trainings` too; what a line says beside the score is passed over."""
        own = {field.name: ({"trainings": 1} | data)[field.name] for field in fields(cls)}
        return cls(**{**own, "blocks": tuple(data["blocks"])})

    @classmethod
    def unavailable(cls, model: str, metric: str, version: str, protocol: str, better: Better, expected: int) -> Score:
        """The score of a metric that cannot be had here: no value, and never zero."""
        return cls(model, metric, version, protocol, None, "", better, None, 0, expected, "unavailable")


@dataclass(frozen=True)
class Row:
    """One leaderboard row; the columns of `results/leaderboard.csv` in order, all as text."""

    schema: str
    suite: str
    suite_version: str
    suite_sha: str
    profile: str
    model: str
    role: str
    recipe: str
    checkpoint_sha: str
    params_m: str
    metric: str
    metric_version: str
    protocol: str
    value: str
    unit: str
    better: str
    se: str
    n: str
    n_expected: str
    status: str
    machine_id: str
    gpu: str
    torch: str
    commit: str
    dirty: str
    date: str
    run_id: str
    note: str

    def to_json(self) -> dict[str, Any]:
        """As `--json` prints it: numbers are numbers, of which an empty one is null, and `dirty` is a boolean.

        Raises:
            BenchError: what should be a number is none.
        """
        numbers = {name: self.number(name) if getattr(self, name) else None for name in NUMBERS}
        return {**asdict(self), **numbers, "dirty": {"true": True, "false": False}.get(self.dirty)}

    def number(self, name: str) -> float:
        """A cell as a number, whole where it is written so; raises BenchError where it is none."""
        where = f"{name} of {self.model} {self.metric}, run {self.run_id or 'unknown'}"
        return number_in(getattr(self, name), where)


COLUMNS = tuple(field.name for field in fields(Row))
NUMBERS = ("schema", "suite_version", "params_m", "value", "se", "n", "n_expected")
# Rows of a run that no model made.
NO_MODELS = {"real": "reference", "static": "baseline"}
TEACHER = "teacher"


def role_of(name: str, baseline: str = TEACHER) -> str:
    """What a row is to a run: `teacher` where others are compared with it, else `student` unless no model made it."""
    return NO_MODELS.get(name) or ("teacher" if name == baseline else "student")


def result_line(score: Score, row: Row) -> str:
    """A line of `results.jsonl`: the score with its blocks and, under `origin`, what its leaderboard row has beside."""
    beside = {name: cell for name, cell in asdict(row).items() if name not in _score_cells(score)}
    return json.dumps({**score.to_json(), "origin": beside}) + "\n"


def row_of(score: Score, origin: dict[str, str]) -> Row:
    """The leaderboard row of a score; columns that `origin` lacks are empty."""
    return Row(**{**dict.fromkeys(COLUMNS, ""), **origin, **_score_cells(score)})


def _score_cells(score: Score) -> dict[str, str]:
    cells = {**asdict(score), "value": number_text(score.value), "se": number_text(score.standard_error)}
    return {name: str(cell) for name, cell in cells.items() if name in COLUMNS}


def is_number(cell: str) -> bool:
    """Whether a cell of a row is a number that can have been measured."""
    try:
        return abs(float(cell)) <= LARGEST
    except ValueError:
        return False


def number_in(cell: str, where: str) -> float:
    """The number that a cell holds, an integer where it is written so; raises BenchError where it is none."""
    if not is_number(cell):
        raise BenchError(f"{cell!r} is no number that was measured ({where}); mend that line")
    return int(cell) if cell.isdecimal() else float(cell)


def number_text(value: float | None) -> str:
    """Six significant digits, empty for None."""
    return "" if value is None else f"{value:.6g}"


def record_of(scores: Sequence[Score], fingerprint: Fingerprint, notes: Mapping[str, str]) -> dict[str, Any]:
    """Scores with the moment, the machine and the code that they were measured by, and notes by metric."""
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "machine_id": fingerprint.machine_id,
        "gpu": fingerprint.gpu,
        "torch": fingerprint.versions["torch"],
        "commit": fingerprint.commit,
        "dirty": fingerprint.dirty,
        "scores": [score.to_json() for score in scores],
        "notes": dict(notes),
    }


def origin_of(record: Mapping[str, Any]) -> dict[str, str]:
    """What the rows of a record's scores share: `compare` refuses those of unlike machines."""
    cells = {name: str(record[name]) for name in ("machine_id", "gpu", "torch", "commit", "date")}
    return {**cells, "dirty": str(record["dirty"]).lower()}
