"""Results as a pandas table, and tables in the formats that pandas writes."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
from click.testing import CliRunner, Result
from results_of_runs import FVD, PARAMS, row, write_results

from vdmini_bench import load_results
from vdmini_bench.cli import main
from vdmini_bench.errors import BenchError, NothingMeasuredError, SuiteError
from vdmini_bench.results.leaderboard import add_rows, rows_to_csv
from vdmini_bench.results.score import COLUMNS

UNAVAILABLE = replace(FVD, metric="kvd", value=None, standard_error=None, status="unavailable", blocks=())
HOSTILE = "<b>&\u202e_$1|=x"


@pytest.fixture
def board(tmp_path: Path) -> Path:
    path = tmp_path / "board.csv"
    add_rows(path, [row(FVD), row(PARAMS, dirty="true"), row(UNAVAILABLE, date="", commit="1e5")])
    return path


def show(board: Path, form: str) -> Result:
    return CliRunner().invoke(main, ["leaderboard", "show", str(board), "--format", form])


def test_a_leaderboard_has_typed_columns(board: Path) -> None:
    frame = load_results(board).set_index("metric")
    assert [*load_results(board).columns] == [*COLUMNS]
    assert frame.loc["fvd", ["value", "se", "n"]].tolist() == [FVD.value, FVD.standard_error, FVD.n]
    assert frame["value"].isna().tolist() == [name == "kvd" for name in frame.index]
    assert frame["dirty"].loc["params_m"]
    assert frame["date"].loc["fvd"] == pd.Timestamp("2026-01-01T00:00:00Z")
    assert frame["date"].isna().loc["kvd"]
    assert frame["commit"].loc["kvd"] == "1e5"
    assert [str(frame[name].dtype) for name in ("value", "n", "dirty", "model")] == [
        "float64", "Int64", "boolean", "category",
    ]  # fmt: skip


def test_a_run_is_found_by_folder_file_and_name(tmp_path: Path) -> None:
    folder = write_results(tmp_path / "results" / "runs" / "run-1", (FVD, UNAVAILABLE))
    whole = load_results(folder)
    assert whole["metric"].tolist() == ["fvd", "kvd"]
    for path in (folder / "results.jsonl", "run-1", "latest"):
        pd.testing.assert_frame_equal(load_results(path, tmp_path / "results"), whole)


def test_what_cannot_be_read_is_said_as_by_the_commands(board: Path, tmp_path: Path) -> None:
    with pytest.raises(SuiteError, match="no such run"):
        load_results(tmp_path / "gone.csv")
    with pytest.raises(NothingMeasuredError, match="no finished run"):
        load_results("latest", tmp_path)
    for cells, said in (({"value": "nan"}, r"board\.csv:2: 'nan' is no number"), ({"n": "1.5"}, "no whole number")):
        board.write_text(rows_to_csv([replace(row(FVD), **cells)]))
        with pytest.raises(BenchError, match=said):
            load_results(board)


def test_no_rows_are_an_empty_table_of_the_same_types(board: Path) -> None:
    board.write_text(",".join(COLUMNS) + "\n")
    assert len(load_results(board)) == 0
    assert str(load_results(board)["value"].dtype) == "float64"


def test_a_parquet_file_reads_back_as_the_leaderboard(board: Path) -> None:
    result = show(board, "parquet")
    assert result.exit_code == 0, result.stderr
    found = pd.read_parquet(io.BytesIO(result.stdout_bytes))
    assert found["value"].dropna().tolist() == [393.0, 6.85]
    assert str(found["date"].dtype).startswith("datetime64")


def test_parquet_is_refused_on_a_terminal(board: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = SimpleNamespace(stdout=SimpleNamespace(isatty=lambda: True))
    monkeypatch.setattr("vdmini_bench.commands.options.sys", terminal)
    result = show(board, "parquet")
    assert result.exit_code == 2
    assert "--format parquet > table.parquet" in result.stderr


def test_one_format_is_given(board: Path) -> None:
    result = CliRunner().invoke(main, ["leaderboard", "show", str(board), "--json", "--format", "html"])
    assert result.exit_code == 2
    assert "give one of --json, --format html" in result.stderr


@pytest.mark.parametrize(
    ("form", "cell"), [("html", "&lt;b&gt;&amp;\ufffd_$1|=x"), ("latex", r"<b>\&" + "\ufffd" + r"\_\$1|=x")]
)
def test_a_name_stays_a_cell(board: Path, form: str, cell: str) -> None:
    add_rows(board, [row(replace(FVD, model=HOSTILE + "x" * 60))])
    shown = show(board, form).stdout
    assert cell + "x" * 60 in shown
    assert shown.count("393") == 2


def test_compare_and_gate_have_every_format(tmp_path: Path) -> None:
    folder = write_results(tmp_path / "runs" / "run-1", (replace(FVD, model="teacher", value=300.0), FVD))
    baseline = tmp_path / "baseline.csv"
    add_rows(baseline, [row(FVD)])
    for form in ("csv", "markdown", "latex", "html", "parquet"):
        for command in (
            ["compare", "teacher", "student"],
            ["gate", str(folder), "--baseline", str(baseline)],
        ):
            result = CliRunner().invoke(main, [*command, "--results", str(tmp_path), "--format", form])
            assert result.exit_code == 0, result.output
            if form == "parquet":
                assert 393.0 in pd.read_parquet(io.BytesIO(result.stdout_bytes)).iloc[0].tolist()
            else:
                assert "393" in result.stdout
