"""The baseline of a gate: a file of rows in the leaderboard's format, committed beside the code it judges."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vdmini_bench.errors import BenchError, NothingMeasuredError, SuiteError
from vdmini_bench.results.leaderboard import read_leaderboard, rewrite_rows
from vdmini_bench.results.score import Row


def read_baseline(path: Path) -> list[Row]:
    """The rows of a baseline; an absent file has none.

    Raises:
        SuiteError: the file cannot be read, with file:line.
    """
    try:
        return read_leaderboard(path)
    except BenchError as error:
        raise SuiteError(str(error)) from error


def update_baseline(path: Path, rows: Sequence[Row], add: bool) -> None:
    """Write a run's rows as the baseline of its suite, profile and machine; what the file has of others stays.

    With `add` the run is one more beside those that are there: from three on, their spread is the noise of a rerun.

    Raises:
        NothingMeasuredError: the run lacks a measurement, so a later gate would pass over it.
        BenchError: the file cannot be read or written.
    """
    lacking = [f"{row.model} {row.metric} is {row.status}" for row in rows if row.status not in ("ok", "unavailable")]
    measured = [row for row in rows if row.status == "ok"]
    if lacking or not measured:
        reason = "; ".join(lacking) or "the run has measured nothing"
        raise NothingMeasuredError(f"{path} was not written: {reason}; a baseline needs a complete run")
    scopes = {_scope(row) for row in rows}

    def change(present: list[Row]) -> list[Row]:
        return [row for row in present if add or _scope(row) not in scopes] + measured

    rewrite_rows(path, change)


def _scope(row: Row) -> tuple[str, str, str]:
    return row.suite, row.profile, row.machine_id
