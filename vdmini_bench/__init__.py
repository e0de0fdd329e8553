"""The harness: prove what shrinking a video diffusion model cost and what it bought."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pandas import DataFrame


def load_results(path: str | Path, results: str | Path = "results") -> DataFrame:
    """Scores as a pandas table, a line a measurement, under the columns of the leaderboard.

    `path` is a leaderboard's CSV, a run's or `score`'s folder or its results.jsonl, or the name of a run in the folder
    `results`, `latest` for the newest finished one. Numbers are floats or integers, `dirty` is a boolean, `date` is in
    UTC, names are categories.

    Raises:
        SuiteError: there is no such file or run.
        NothingMeasuredError: the run did not come to an end, or there is none that could be the latest.
        BenchError: a line cannot be read, with file:line.
    """
    from vdmini_bench.results.frame import read_frame

    return read_frame(Path(path), Path(results))
