from __future__ import annotations

import csv
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from results_of_runs import FVD, row

from vdmini_bench.cli import main
from vdmini_bench.compare.history import collect_series
from vdmini_bench.errors import BenchError
from vdmini_bench.results.leaderboard import add_rows, latest_rows, read_leaderboard, rows_to_csv
from vdmini_bench.results.score import COLUMNS, Row

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


def test_a_file_of_before_rows_had_a_recipe_is_read_and_merged(board: Path) -> None:
    before = [name for name in COLUMNS if name != "recipe"]
    cells = {**dict.fromkeys(COLUMNS, ""), "model": "student", "value": "1", "status": "ok", "note": "old"}
    old = [",".join(before), ",".join(cells[name] for name in before)]
    board.parent.mkdir()
    board.write_text("\n".join(old) + "\n")
    (row,) = read_leaderboard(board)
    assert row == Row(**cells)
    new = replace(row, recipe="sample: steps=6; accelerate: int8", note="")
    add_rows(board, [new])
    assert board.read_text().splitlines()[0] == ",".join(COLUMNS)
    assert {*read_leaderboard(board)} == {row, new}
    # A union merge leaves both headers, and lines of both kinds.
    board.write_text(board.read_text() + "\n".join(old) + "\n")
    assert {*read_leaderboard(board)} == {row, new}
    # Without the old header a line that lacks a cell is a damaged one.
    board.write_text(",".join(COLUMNS) + "\n" + old[1] + "\n")
    with pytest.raises(BenchError, match=r":2: 27 cells where 28 belong"):
        read_leaderboard(board)


def test_what_a_model_is_made_of_is_part_of_its_identity(board: Path) -> None:
    plain = replace(EMPTY, model="mine", metric="fvd", value="1", status="ok")
    rows = [
        plain,
        replace(plain, recipe="sample: steps=6"),
        replace(plain, recipe="sample: steps=6", date="2", value="3"),
    ]
    assert {(row.recipe, row.value) for row in latest_rows(rows)} == {("", "1"), ("sample: steps=6", "3")}
    assert len(collect_series(rows, lambda row: True)) == 2
    add_rows(board, rows)
    shown = CliRunner().invoke(main, ["leaderboard", "show", str(board), "--format", "markdown"]).output
    assert "| sample: steps=6 |" in shown
    history = CliRunner().invoke(main, ["leaderboard", "history", str(board), "--format", "markdown"])
    assert "| sample: steps=6 |" in history.output


ROW = replace(EMPTY, model="mine", value="100", se="5", status="ok", commit="1234e5", dirty="true", note="a, b")


def test_what_a_spreadsheet_saves_is_the_same_measurement(board: Path) -> None:
    add_rows(board, [ROW])
    text = board.read_text()
    board.write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    assert read_leaderboard(board) == [ROW]
    saved = text.replace(",true,", ",TRUE,").replace("1234e5", "1.23E+08")
    assert saved.count("1.23E+08,TRUE") == 1
    board.write_text(text + saved.partition("\n")[2])
    assert read_leaderboard(board) == [ROW]
    # A second machine's, or a second run's, is another one.
    add_rows(board, [replace(ROW, machine_id="other"), replace(ROW, run_id="r2"), replace(ROW, value="101")])
    assert len(read_leaderboard(board)) == 4


@pytest.mark.parametrize("cell", ["nan", "inf", "-inf", "1e308", "", '"100,0"', "many", "1 000"])
@pytest.mark.parametrize("column", ["value", "se"])
def test_a_number_that_was_not_measured_is_placed(board: Path, column: str, cell: str) -> None:
    add_rows(board, [ROW, replace(EMPTY, model="other", status="incomplete")])
    number = "100" if column == "value" else "5"
    board.write_text(board.read_text().replace(f",{number},", f",{cell},", 1))
    if (column, cell) == ("se", ""):
        assert {*read_leaderboard(board)} == {replace(ROW, se=""), replace(EMPTY, model="other", status="incomplete")}
        return
    with pytest.raises(BenchError, match=r"leaderboard\.csv:\d: .* is no number that was measured"):
        read_leaderboard(board)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (",".join(COLUMNS).replace(",", ";").encode(), ":1: semicolons between the fields"),
        (",".join(COLUMNS).encode("utf-16"), r": cannot be read \(UTF-16"),
        (b"", ":1: not a leaderboard of this version"),
    ],
)
def test_other_forms_of_a_spreadsheet_are_refused(board: Path, content: bytes, said: str) -> None:
    board.parent.mkdir()
    board.write_bytes(content)
    with pytest.raises(BenchError, match=said):
        read_leaderboard(board)


@pytest.mark.parametrize("cell", ["=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\t=1", "\r=1", "\n=1"])
def test_formulas_are_neutralised(board: Path, cell: str) -> None:
    add_rows(board, [replace(EMPTY, note=cell)])
    with board.open(newline="") as file:
        (stored,) = [line["note"] for line in csv.DictReader(file)]
    assert not stored.startswith(("=", "+", "-", "@", "\t", "\r", "\n"))
    assert cell.strip() in stored


@pytest.mark.parametrize("cell", ["-1.5", "+2", "-1e-05", "-inf", "'quoted", "a=b", "é", "<<<<<<< HEAD"])
def test_numbers_and_words_are_kept(board: Path, cell: str) -> None:
    add_rows(board, [replace(EMPTY, value=cell, schema=cell)])
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
from vdmini_bench.results.leaderboard import add_rows
from vdmini_bench.results.score import COLUMNS, Row

board, number = Path(sys.argv[1]), sys.argv[2]
# All at once, not one after the other as they start.
print("ready", flush=True)
sys.stdin.readline()
for turn in range(5):
    add_rows(board, [Row(*(number for _ in COLUMNS[:-1]), str(turn))])
"""


# The same on a disk that has no file locks, as network disks may say.
WITHOUT_LOCKS = """
import errno, fcntl
def flock(file, operation): raise OSError(errno.ENOLCK, "no locks available")
fcntl.flock = flock
"""


@pytest.mark.parametrize("disk", ["", WITHOUT_LOCKS], ids=["locks", "no locks"])
def test_eight_processes_lose_no_row(board: Path, disk: str) -> None:
    children = [
        subprocess.Popen(
            [sys.executable, "-c", disk + CHILD, str(board), str(number)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(8)
    ]
    for child in children:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
    for child in children:
        assert child.stdin is not None
        child.stdin.write("go\n")
        child.stdin.flush()
    fewest = 0
    while any(child.poll() is None for child in children):
        # Whoever reads meanwhile reads a whole file: a torn line would raise.
        seen = len(read_leaderboard(board))
        assert seen >= fewest
        fewest = seen
    assert [child.wait(timeout=120) for child in children] == [0] * 8
    for child in children:
        child.communicate()
    found = [(row.schema, row.note) for row in read_leaderboard(board)]
    assert sorted(found) == sorted((str(number), str(turn)) for number in range(8) for turn in range(5))


def test_what_a_union_merge_leaves_reads_as_each_row_once(board: Path) -> None:
    rows = [replace(EMPTY, model=model) for model in "abc"]
    add_rows(board, rows)
    good = board.read_bytes()
    header, *lines = board.read_text().splitlines(keepends=True)
    board.write_text("\ufeff" + "".join([header, *lines[::-1], "\n", header, lines[0]]), newline="\r\n")
    assert {row.model for row in read_leaderboard(board)} == {"a", "b", "c"}
    assert len(read_leaderboard(board)) == 3
    add_rows(board, [])
    assert board.read_bytes() == good


@pytest.mark.parametrize("mark", ["<<<<<<< HEAD", "=======", ">>>>>>> branch"])
def test_marks_of_an_unfinished_merge_are_placed(board: Path, mark: str) -> None:
    add_rows(board, [EMPTY, replace(EMPTY, model="a")])
    lines = board.read_text().splitlines()
    board.write_text("\n".join([*lines[:2], mark, lines[2]]))
    with pytest.raises(BenchError, match=r"leaderboard\.csv:3: a mark of an unfinished merge; delete the lines"):
        read_leaderboard(board)


def test_what_cannot_be_written_is_said_and_nothing_is_lost(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "file" / "board.csv", tmp_path):
        with pytest.raises(BenchError, match=r"cannot be (written|read)"):
            add_rows(path, [EMPTY])


def git(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    # Nothing of the machine's own settings.
    command = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-c", "init.defaultBranch=main", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, check=True)


def test_two_branches_that_both_add_rows_merge_without_conflict(tmp_path: Path) -> None:
    attributes = (Path(__file__).parents[2] / ".gitattributes").read_text()
    (tmp_path / ".gitattributes").write_text(attributes)
    board = tmp_path / "results" / "leaderboard.csv"
    git(tmp_path, "init", "-q")
    first = [replace(EMPTY, suite="s", model=f"m{number}", date="2026-01-01") for number in range(4)]
    add_rows(board, first)
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "first")
    added = {}
    for branch in ("one", "two"):
        git(tmp_path, "checkout", "-qb", branch, "main")
        # Sorted among those that are there, at the same places on both branches, one of them the same on both.
        added[branch] = [
            replace(EMPTY, suite="s", model="m1", date="2026-01-01", run_id=branch),
            replace(EMPTY, suite="s", model="m9", date="2026-01-02", run_id=branch),
            replace(EMPTY, suite="s", model="m9", date="2026-01-03"),
        ]
        add_rows(board, added[branch])
        git(tmp_path, "commit", "-qam", branch)
    git(tmp_path, "merge", "-q", "one", "-m", "merged")
    assert git(tmp_path, "status", "--porcelain", "--untracked-files=no").stdout == ""
    expected = {*first, *added["one"], *added["two"]}
    assert {*read_leaderboard(board)} == expected
    assert len(read_leaderboard(board)) == len(expected) == 9
    # The next writer leaves it sorted.
    add_rows(board, [])
    other = tmp_path / "other.csv"
    add_rows(other, expected)
    assert board.read_bytes() == other.read_bytes()


def test_numbers_are_numbers_as_json_and_what_is_none_is_placed(board: Path) -> None:
    add_rows(board, [row(replace(FVD, standard_error=None), dirty="true", params_m="7.5")])
    (found,) = json.loads(CliRunner().invoke(main, ["leaderboard", "show", str(board), "--json"]).stdout)["rows"]
    expected = {"schema": 1, "suite_version": 1, "params_m": 7.5, "se": None, "dirty": True}
    assert {name: found[name] for name in expected} == expected
    assert (found["value"], found["n"], found["n_expected"]) == (FVD.value, FVD.n, FVD.n_expected)
    assert all(type(found[name]) is int for name in ("schema", "n", "n_expected"))
    (whole,) = read_leaderboard(board)
    assert found["commit"] == whole.commit
    for cell in ("1,5", "nan", "inf"):
        board.write_text(rows_to_csv([replace(whole, value=cell)]))
        result = CliRunner().invoke(main, ["leaderboard", "show", str(board), "--json"])
        assert result.exit_code == 4
        assert f"'{cell}' is no number" in result.stderr


def test_the_longest_name_of_a_file_has_room(tmp_path: Path) -> None:
    path = tmp_path / ("x" * 251 + ".csv")
    add_rows(path, [row(FVD)])
    add_rows(path, [row(FVD, run_id="another")])
    assert len(read_leaderboard(path)) == 2
