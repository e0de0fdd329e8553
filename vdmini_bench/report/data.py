"""What a report is made of, read from a run's folder and from what its jobs left; nothing is computed again."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vdmini_bench.errors import BenchError, SuiteError
from vdmini_bench.report.examples import Examples, read_examples
from vdmini_bench.results.records import RUN_FILE, Record, baseline_of, part_of, read_run
from vdmini_bench.results.score import NO_MODELS, Row
from vdmini_bench.results.table import in_order
from vdmini_bench.system.text_files import read_text

LOSSES = "losses.csv"
STUDY, STUDY_TABLE = "importance.json", "importance.csv"
PLAN = Path("student", "pruning_plan.json")
# A curve of more points looks the same and makes the file larger.
MOST_POINTS = 400


@dataclass(frozen=True)
class Losses:
    """The losses of a distillation by name, at some of its steps: each value the mean since the step before."""

    steps: tuple[int, ...]
    series: dict[str, tuple[float, ...]]


@dataclass(frozen=True)
class BlockLoss:
    """What clips lose without one block; None where nothing can stand for it. `removed`: pruning took it out."""

    name: str
    content: float | None
    motion: float | None
    removed: bool


@dataclass(frozen=True)
class ReportData:
    """All of a run that its report shows; `run` is its `run.json`, empty for scored videos, `losses` are by row."""

    name: str
    run: dict[str, Any]
    records: tuple[Record, ...]
    examples: Examples | None
    losses: dict[str, Losses]
    blocks: tuple[BlockLoss, ...]

    @property
    def rows(self) -> list[Row]:
        """The leaderboard rows of its scores."""
        return [record.row for record in self.records]

    @property
    def models(self) -> list[str]:
        """All models in the order of the table."""
        return in_order(record.score.model for record in self.records)

    @property
    def baseline(self) -> str:
        """The row that others are compared with."""
        return baseline_of(self.run)

    @property
    def compared(self) -> list[str]:
        """The models that are compared with the baseline."""
        return [model for model in self.models if model != self.baseline and model not in NO_MODELS]

    def settings(self, *path: str) -> Any:
        """A part of `run.json`, None where it is missing."""
        return part_of(self.run, *path)


def gather_data(folder: Path, records: Iterable[Record], study: Path | None = None) -> ReportData:
    """Read all that there is of a run, or of scored videos.

    `study` is a folder that `importance` left; when None, one of the same teacher beside the runs is taken.

    Raises:
        BenchError: a file cannot be read.
        SuiteError: `study` holds no importance.
    """
    run = read_run(folder) if (folder / RUN_FILE).is_file() else {}
    results = folder.resolve().parent.parent
    work = results / "work"
    losses = {row: work / f"distill-{key}" / LOSSES for row, key in _keys(run, "distill").items()}
    read = {row: read_losses(path) for row, path in losses.items() if path.is_file()}
    plans = (work / f"prune-{key}" / PLAN for key in _keys(run, "prune").values())
    plan = next(filter(Path.is_file, plans), None)
    chosen = study or _study_of(results, part_of(run, "inputs", "teacher"))
    return ReportData(
        folder.resolve().name,
        run,
        tuple(records),
        read_examples(folder),
        {row: found for row, found in read.items() if found is not None},
        () if chosen is None else read_blocks(chosen, frozenset() if plan is None else _removed(plan)),
    )


def read_losses(path: Path) -> Losses | None:
    """The losses that a distillation wrote, thinned to what a picture can show; None where there are none yet.

    Raises:
        BenchError: it is not such a file.
    """
    try:
        header, *lines = csv.reader(io.StringIO(read_text(path), newline=""))
        numbers = [[float(cell) for cell in line] for line in lines]
        if header[:1] != ["step"] or any(len(line) != len(header) for line in numbers):
            raise ValueError("its columns must be step and losses")
    except (SuiteError, ValueError) as error:
        raise BenchError(f"{path} cannot be read ({error}); run the suite again") from error
    if not numbers:
        return None
    group = math.ceil(len(numbers) / MOST_POINTS)
    groups = [numbers[start : start + group] for start in range(0, len(numbers), group)]
    means = [[math.fsum(column) / len(part) for column in zip(*part, strict=True)] for part in groups]
    series = {name: tuple(line[index] for line in means) for index, name in enumerate(header) if index}
    shown = {name: values for name, values in series.items() if any(values) and all(map(math.isfinite, values))}
    return Losses(tuple(int(part[-1][0]) for part in groups), shown)


def read_blocks(study: Path, removed: frozenset[str] = frozenset()) -> tuple[BlockLoss, ...]:
    """The blocks of an importance study from shallow to deep.

    Raises:
        SuiteError: the folder holds none.
    """
    try:
        table = csv.DictReader(io.StringIO(read_text(study / STUDY_TABLE), newline=""))
        lines = [line for line in table if line["kind"] == "block"]
        lines.sort(key=lambda line: float(line["depth"]))
        blocks = tuple(
            BlockLoss(line["name"], _number(line["content"]), _number(line["motion"]), line["name"] in removed)
            for line in lines
        )
    except (SuiteError, ValueError, KeyError, TypeError) as error:
        raise SuiteError(
            f"{study} holds no finished importance study ({error}); make one: vdmini-bench importance MODEL -o {study}"
        ) from error
    return blocks if any(block.content and block.motion for block in blocks) else ()


def _keys(run: Mapping[str, Any], stage: str) -> dict[str, str]:
    """The keys of a stage's jobs by row, `` where a run of before names none; a path would lead out of the results."""
    jobs = run.get("jobs")
    named = [(str(part_of(job, "name")), str(part_of(job, "key"))) for job in (jobs if isinstance(jobs, list) else ())]
    return {name[len(stage) + 1 :]: key for name, key in named if f"{name} ".startswith(f"{stage} ") and key.isalnum()}


def _study_of(results: Path, teacher: object) -> Path | None:
    """The folder of a finished study of this checkpoint, beside `runs` or in a folder there."""
    for record in sorted((*results.glob(f"*/{STUDY}"), *results.glob(f"*/*/{STUDY}"))):
        try:
            checkpoint = part_of(json.loads(record.read_text(encoding="utf-8")), "checkpoint_sha256")
        except (OSError, ValueError, RecursionError):
            continue
        if teacher is not None and checkpoint == teacher and (record.parent / STUDY_TABLE).is_file():
            return record.parent
    return None


def _removed(plan: Path) -> frozenset[str]:
    try:
        found: Mapping[str, Any] = json.loads(plan.read_text(encoding="utf-8"))
        return frozenset(map(str, found["removed"]))
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return frozenset()


def _number(cell: str) -> float | None:
    return float(cell) if cell else None
