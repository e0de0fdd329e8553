"""Leaderboard rows as a pandas table: numbers, booleans, categories and dates in place of text."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from vdmini_bench.errors import BenchError
from vdmini_bench.results.leaderboard import read_leaderboard
from vdmini_bench.results.records import is_file
from vdmini_bench.results.runs import whole_run
from vdmini_bench.results.score import COLUMNS, RESULTS_FILE, Row
from vdmini_bench.results.store import Store

FREE_TEXT = ("suite_sha", "checkpoint_sha", "commit", "date", "run_id", "note")
TYPES = (
    dict.fromkeys(COLUMNS, "category")
    | dict.fromkeys(FREE_TEXT, "string")
    | dict.fromkeys(("schema", "suite_version", "n", "n_expected"), "Int64")
    | dict.fromkeys(("params_m", "value", "se"), "float64")
    | {"dirty": "boolean"}
)


def read_frame(path: Path, results: Path) -> pd.DataFrame:
    """What `vdmini_bench.load_results` gives."""
    if path.name != RESULTS_FILE and is_file(path):
        return frame_of(read_leaderboard(path))
    run = str(path.parent if path.name == RESULTS_FILE else path)
    return frame_of(record.row for record in whole_run(run, Store(results))[1])


def frame_of(rows: Iterable[Row]) -> pd.DataFrame:
    """A line a row under the leaderboard's own columns; an empty number is NaN or NA, a date that is none NaT.

    Raises:
        BenchError: what should be a number is none, or a count no whole one.
    """
    try:
        frame = pd.DataFrame([row.to_json() for row in rows], columns=[*COLUMNS]).astype(TYPES)
    except (TypeError, ValueError, OverflowError) as error:
        raise BenchError(f"a column of counts holds what is no whole number ({error}); mend that line") from error
    return frame.assign(date=pd.to_datetime(frame["date"], utc=True, format="ISO8601", errors="coerce"))
