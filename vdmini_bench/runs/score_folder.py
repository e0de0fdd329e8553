"""Score a folder of videos made elsewhere under a suite's protocol: nothing is generated, no model is loaded."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vdmini_bench.results.leaderboard import add_rows
from vdmini_bench.results.score import RESULTS_FILE, SCORES, Row, Score, result_line, row_of
from vdmini_bench.runs.execution import execute_needed
from vdmini_bench.runs.rows import measured_under
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
    *_, executed = execute_needed(context, [f"measure {request.model}"])
    job = executed.job
    record = json.loads((context.folder(job.name) / SCORES).read_text(encoding="utf-8")) | {"run_id": job.key}
    scores = tuple(map(Score.from_json, record["scores"]))
    rows = tuple(row_of(each, {**measured_under(request.suite, each, record), "role": SCORED}) for each in scores)
    # Where `compare --run` reads them, and beside those of other folders.
    folder = results / SCORED / job.key
    write_atomically(folder / RESULTS_FILE, "".join(map(result_line, scores, rows)))
    add_rows(results / ROWS_FILE, rows)
    return FolderScores(folder, rows, scores, executed.cached, tuple(context.warnings()))
