"""Score a folder of videos made elsewhere under a suite's protocol: nothing is generated, no model is loaded."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vdmini_bench.results.leaderboard import add_rows
from vdmini_bench.results.score import RESULTS_FILE, SCORES, Row, Score, result_line, row_of
from vdmini_bench.results.store import Store
from vdmini_bench.runs.execution import execute_needed
from vdmini_bench.runs.rows import suite_cells
from vdmini_bench.suites.folder import ScoreRequest, open_folder
from vdmini_bench.system.files import write_atomically

SCORED = "scored"
ROWS_FILE = "scores.csv"


@dataclass(frozen=True)
class FolderScores:
    """What scoring left: the folder with its records, its rows, and whether the scores were there already."""

    folder: Path
    rows: tuple[Row, ...]
    scores: tuple[Score, ...]
    cached: bool
    warnings: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """The object that `score --json` prints."""
        return {
            "folder": str(self.folder),
            "cached": self.cached,
            "rows": [row.to_json() for row in self.rows],
            "warnings": list(self.warnings),
        }


def score_folder(request: ScoreRequest, results: Path, workers: int = 1) -> FolderScores:
    """Score the videos, or read what an earlier call left for the same files, protocol and weights.

    Raises:
        SuiteError, MissingAssetsError: as `open_folder`; nothing was scored.
        IncompleteError: some videos could not be read, each is named.
        BenchError: scoring failed.
    """
    context = open_folder(request, results, workers)
    measure = f"measure {request.model}"
    *_, executed = execute_needed(context, [measure])
    record = json.loads((context.folder(measure) / SCORES).read_text(encoding="utf-8"))
    return _publish(request, context.store, record, context.jobs[measure].key, executed.cached, context.warnings())


def _publish(
    request: ScoreRequest, store: Store, record: dict[str, Any], key: str, cached: bool, warnings: list[str]
) -> FolderScores:
    """Leave the scores where `compare --run` reads them, and their rows beside those of other folders."""
    scores = tuple(Score.from_json(score) for score in record["scores"])
    folder = store.root / SCORED / key
    rows = tuple(_row(request, score, record, key) for score in scores)
    write_atomically(folder / RESULTS_FILE, "".join(map(result_line, scores, rows)))
    add_rows(store.root / ROWS_FILE, rows)
    return FolderScores(folder, rows, scores, cached, tuple(warnings))


def _row(request: ScoreRequest, score: Score, record: dict[str, Any], key: str) -> Row:
    suite = request.suite
    origin = {
        **suite_cells(suite),
        "role": SCORED,
        "machine_id": record["machine_id"],
        "gpu": record["gpu"],
        "torch": record["torch"],
        "commit": record["commit"],
        "dirty": str(record["dirty"]).lower(),
        "date": record["date"],
        "run_id": key,
        "note": "; ".join(filter(None, (suite.profile.stand_in, record["notes"].get(score.metric)))),
    }
    return row_of(score, origin)
