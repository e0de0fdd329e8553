from __future__ import annotations

import csv
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vdmini_bench.errors import BenchError
from vdmini_bench.leaderboard import add_rows, read_leaderboard
from vdmini_bench.measurement import COLUMNS, Row

EMPTY = Row(*("" for _ in COLUMNS))


@pytest.fixture
def board(tmp_path: Path) -> Path:
    return tmp_path / "results" / "leaderboard.csv"


def test_an_absent_file_has_no_rows(board: Path) -> None:
    assert read_leaderboard(board) == []


def test_rows_are_sorted_whatever_the_order_they_come_in(board: Path, tmp_path: Path) -> None:
    rows = [replace(EMPTY, suite=suite, model=model) for suite in "ba" for model in ("teacher", "real")]
    add_rows(board, rows[:1])
    add_rows(board, rows[1:])
    other = tmp_path / "other.csv"
    add_rows(other, reversed(rows))
    assert board.read_bytes() == other.read_bytes()
    assert [(row.suite, row.model) for row in read_leaderboard(board)] == [
        ("a", "real"), ("a", "teacher"), ("b", "real"), ("b", "teacher"),
    ]  # fmt: skip


def test_adding_again_changes_no_byte(board: Path) -> None:
    rows = [replace(EMPTY, model="teacher", note='=1+1, or "more"'), replace(EMPTY, value="-0.5")]
    add_rows(board, rows)
    before = board.read_bytes()
    add_rows(board, rows)
    add_rows(board, read_leaderboard(board))
    add_rows(board, [])
    assert board.read_bytes() == before
    assert b"\r" not in before
    assert before.startswith(",".join(COLUMNS).encode() + b"\n")


@pytest.mark.parametrize("cell", ["=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\t=1", "\r=1", "\n=1"])
def test_formulas_are_neutralised(board: Path, cell: str) -> None:
    add_rows(board, [replace(EMPTY, note=cell)])
    with board.open(newline="") as file:
        (stored,) = [line["note"] for line in csv.DictReader(file)]
    assert not stored.startswith(("=", "+", "-", "@", "\t", "\r", "\n"))
    assert cell.strip() in stored


@pytest.mark.parametrize("cell", ["-1.5", "+2", "-1e-05", "-inf", "'quoted", "a=b", "é"])
def test_numbers_and_words_are_kept(board: Path, cell: str) -> None:
    add_rows(board, [replace(EMPTY, value=cell)])
    assert read_leaderboard(board)[0].value == cell


@given(st.lists(st.tuples(st.text(max_size=8), st.text(max_size=8)), min_size=1, max_size=4))
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_text_leaves_a_file_that_reads_back(tmp_path: Path, cells: list[tuple[str, str]]) -> None:
    board = tmp_path / "any.csv"
    board.unlink(missing_ok=True)
    rows = [replace(EMPTY, model=str(number), suite=a, note=b) for number, (a, b) in enumerate(cells)]
    add_rows(board, rows)
    first = board.read_bytes()
    assert {row.model for row in read_leaderboard(board)} == {row.model for row in rows}
    # One row, one line, so that the line numbers of messages hold.
    assert first.count(b"\n") == len(rows) + 1
    add_rows(board, rows)
    assert board.read_bytes() == first


def test_other_columns_and_short_rows_are_placed(board: Path) -> None:
    add_rows(board, [replace(EMPTY, model="a"), replace(EMPTY, model="b")])
    good = board.read_text()
    lines = good.splitlines()
    for bad, number in (
        ("\n".join([lines[0] + ",extra", *lines[1:]]), 1),
        ("", 1),
        ("\n".join([*lines[:2], lines[2] + ",x"]), 3),
        ("\n".join([lines[0], "x", lines[2]]), 2),
    ):
        board.write_text(bad)
        for call in (lambda: read_leaderboard(board), lambda: add_rows(board, [EMPTY])):
            with pytest.raises(BenchError, match=rf"leaderboard\.csv:{number}: "):
                call()
        # What cannot be read is not overwritten.
        assert board.read_text() == bad


def test_a_file_that_is_no_text_is_named(board: Path) -> None:
    board.parent.mkdir()
    board.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BenchError, match=r"leaderboard\.csv"):
        read_leaderboard(board)


CHILD = """
import sys
from dataclasses import replace
from pathlib import Path
from vdmini_bench.leaderboard import add_rows
from vdmini_bench.measurement import COLUMNS, Row

board, number = Path(sys.argv[1]), sys.argv[2]
for turn in range(5):
    add_rows(board, [Row(*(number for _ in COLUMNS[:-1]), str(turn))])
"""


def test_eight_processes_lose_no_row(board: Path) -> None:
    children = [subprocess.Popen([sys.executable, "-c", CHILD, str(board), str(number)]) for number in range(8)]
    assert [child.wait(timeout=120) for child in children] == [0] * 8
    found = [(row.schema, row.note) for row in read_leaderboard(board)]
    assert sorted(found) == sorted((str(number), str(turn)) for number in range(8) for turn in range(5))
