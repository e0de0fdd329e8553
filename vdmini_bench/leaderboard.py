"""The leaderboard CSV: long form, sorted, one row a measurement, safe to append from many processes."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from filelock import FileLock

from vdmini_bench.errors import BenchError
from vdmini_bench.measurement import COLUMNS, Row
from vdmini_bench.store import write_atomically

# Spreadsheets run a cell that starts with one of these as a formula.
LINE_BREAKS = re.compile(r"[\r\n\0]+")
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n")


def read_leaderboard(path: Path) -> list[Row]:
    """Read all rows; an absent file has none.

    Raises:
        BenchError: the file has other columns or a row of another length, with file:line.
    """
    if not path.exists():
        return []
    try:
        with path.open(newline="", encoding="utf-8") as file:
            lines = list(csv.reader(file, strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise BenchError(f"{path}: not a CSV file ({error}); move it away or mend it") from error
    if not lines or tuple(lines[0]) != COLUMNS:
        raise BenchError(f"{path}:1: not a leaderboard of this version; its columns must be {','.join(COLUMNS)}")
    for number, line in enumerate(lines[1:], start=2):
        if len(line) != len(COLUMNS):
            raise BenchError(f"{path}:{number}: {len(line)} cells where {len(COLUMNS)} belong; mend or delete the line")
    return [Row(*line) for line in lines[1:]]


def add_rows(path: Path, rows: Iterable[Row]) -> None:
    """Add rows under a lock and write the file sorted; a row that is already there is not repeated."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{path}.lock"):
        merged = {*read_leaderboard(path), *(_as_plain_cells(row) for row in rows)}
        write_atomically(path, _to_csv(sorted(merged, key=_order)))


def _to_csv(rows: Iterable[Row]) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(tuple(asdict(row).values()) for row in rows)
    return buffer.getvalue()


def _order(row: Row) -> tuple[str, ...]:
    first = (row.suite, row.profile, row.date, row.run_id, row.model, row.metric, row.protocol)
    return (*first, *asdict(row).values())


def _as_plain_cells(row: Row) -> Row:
    # A line of the file is a row: merges across branches and `grep` both count on it.
    cells = (LINE_BREAKS.sub(" ", cell) for cell in asdict(row).values())
    return Row(*(f"'{cell}" if _is_formula(cell) else cell for cell in cells))


def _is_formula(cell: str) -> bool:
    if not cell.startswith(FORMULA_STARTS):
        return False
    try:
        float(cell)
    except ValueError:
        return True
    return False
