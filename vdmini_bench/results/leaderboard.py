"""The leaderboard CSV: long form, sorted, one row a measurement, safe to append from many processes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import astuple, replace
from pathlib import Path

from vdmini.locks import file_lock
from vdmini_bench.errors import BenchError, SuiteError
from vdmini_bench.results.score import COLUMNS, Row, is_number
from vdmini_bench.system.files import write_atomically
from vdmini_bench.system.tables import csv_lines, plain_cell
from vdmini_bench.system.text_files import read_csv

# The header of before rows had a recipe.
BEFORE = tuple(name for name in COLUMNS if name != "recipe")
CONFLICT_MARKS = ("<<<<<<<", "=======", ">>>>>>>", "|||||||")


def read_leaderboard(path: Path) -> list[Row]:
    """Read all rows, each once; an absent file has none.

    What `git` leaves after a union merge reads as well: rows in any order, rows twice, a second header, empty lines.
    A row that a spreadsheet saved again is the same one. Rows of before there was a `recipe` have an empty one.

    Raises:
        BenchError: the file has other columns, a row of another length or a value that is no number, with file:line.
    """
    try:
        lines = read_csv(path) if path.exists() else [(1, [*COLUMNS])]
    except (OSError, SuiteError) as error:
        raise BenchError(str(error)) from error
    headers = {COLUMNS, BEFORE} & {tuple(line) for _, line in lines}
    if not lines or tuple(lines[0][1]) not in headers:
        raise BenchError(f"{path}:1: not a leaderboard of this version; its columns must be {','.join(COLUMNS)}")
    found: dict[Row, Row] = {}
    for number, line in lines:
        if tuple(line) not in headers:
            if len(line) == len(BEFORE) and BEFORE in headers:
                line.insert(COLUMNS.index("recipe"), "")
            row = _row_of(f"{path}:{number}", line)
            found.setdefault(_measurement(row), row)
    return list(found.values())


def _row_of(place: str, cells: Sequence[str]) -> Row:
    if len(cells) != len(COLUMNS) and cells[0].startswith(CONFLICT_MARKS):
        raise BenchError(
            f"{place}: a mark of an unfinished merge; delete the lines <<<<<<<, ======= and >>>>>>>:"
            " the rows of both sides may stay"
        )
    if len(cells) != len(COLUMNS):
        raise BenchError(f"{place}: {len(cells)} cells where {len(COLUMNS)} belong; mend or delete the line")
    row = Row(*cells)
    for cell in (row.value, row.se or "0") if row.status == "ok" else ():
        if not is_number(cell):
            raise BenchError(f"{place}: {cell!r} is no number that was measured; mend or delete the line")
    return row


def _measurement(row: Row) -> Row:
    """A row without what a spreadsheet rewrites: the commit 1234e5 as a number, true in capitals."""
    return replace(row, commit="", dirty="")


def add_rows(path: Path, rows: Iterable[Row]) -> None:
    """Add rows under a lock and write the file sorted; a row that is already there is not repeated."""
    rewrite_rows(path, lambda present: (*present, *rows))


def rewrite_rows(path: Path, change: Callable[[list[Row]], Iterable[Row]]) -> None:
    """Replace the rows of a file by what `change` makes of them, under a lock that other writers wait for.

    Raises:
        BenchError: the file cannot be read or written.
    """
    try:
        with file_lock(path.with_name(f"{path.name}.lock")):
            rows = {Row(*map(plain_cell, astuple(row))) for row in change(read_leaderboard(path))}
            write_atomically(path, rows_to_csv(sorted(rows, key=_order)))
    except OSError as error:
        raise BenchError(f"{path}: cannot be written ({error}); free the disk or choose another folder") from error


def latest_rows(rows: Iterable[Row]) -> list[Row]:
    """The newest row of each measurement: of each suite, profile, model, recipe, metric, protocol and machine."""
    newest: dict[tuple[str, ...], Row] = {}
    for row in sorted(rows, key=lambda row: (row.date, row.run_id)):
        newest[row.suite, row.profile, row.model, row.recipe, row.metric, row.protocol, row.machine_id] = row
    return list(newest.values())


def rows_to_csv(rows: Iterable[Row]) -> str:
    """The file that holds these rows in this order."""
    return csv_lines([COLUMNS, *map(astuple, rows)])


def _order(row: Row) -> tuple[str, ...]:
    first = (row.suite, row.profile, row.date, row.run_id, row.model, row.metric, row.protocol)
    return (*first, *astuple(row))
