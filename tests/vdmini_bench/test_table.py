from __future__ import annotations

import re
import sys
from dataclasses import replace

import pytest

from vdmini_bench.results.score import COLUMNS, Row, number_text
from vdmini_bench.results.table import wide_table
from vdmini_bench.system.tables import markdown_table, print_table

EMPTY = replace(Row(*("" for _ in COLUMNS)), status="ok")


def row(model: str, metric: str, value: str, se: str = "", status: str = "ok", params_m: str = "") -> Row:
    return replace(EMPTY, model=model, metric=metric, value=value, se=se, status=status, params_m=params_m)


def cells(model: str, *rows: Row) -> dict[str, str]:
    header, lines = wide_table(rows)
    (line,) = [line for line in lines if line[0] == model]
    return dict(zip(header, line, strict=True))


def test_models_stand_in_their_order() -> None:
    models = ("teacher", "6 steps", "static", "student, small decoder", "<b>odd</b>", "real", "int8")
    _, lines = wide_table(row(model, "fvd", "1") for model in models)
    assert [line[0] for line in lines] == [
        "real", "static", "teacher", "6 steps", "student, small decoder", "<b>odd</b>", "int8",
    ]  # fmt: skip


def test_a_cell_has_its_error_and_a_blank_is_a_dash() -> None:
    rows = (row("teacher", "fvd", "123.4", "1.25"), row("teacher", "latency_denoiser", "45.67"))
    found = cells("teacher", *rows, row("student", "psnr", "31.5"), row("student", "speedup_end_to_end", "2"))
    assert found["FVD"] == "123 ± 1.25"
    assert found["denoiser (ms)"] == "45.7"
    # The baseline is neither faster than itself nor near it.
    assert found["PSNR (dB)"] == found["end-to-end speed-up"] == "-"
    assert found["status"] == "ok"


def test_only_what_some_row_has_is_a_column() -> None:
    fidelity = [row("6 steps", name, "0.5") for name in ("psnr", "ssim", "content_distance", "motion_distance")]
    header, (line,) = wide_table([row("6 steps", "fvd", "", status="failed"), *fidelity])
    assert header[:4] == ["model", "params (M)", "FVD", "PSNR (dB)"]
    assert header[4:] == ["SSIM", "content distance", "motion distance (px)", "status"]
    assert line == ["6 steps", "-", "failed", "0.50", "0.50", "0.50", "0.50", "failed"]
    assert wide_table([row("teacher", "decoder_gflops", "12")])[0] == ["model", "params (M)", "decoder GFLOP", "status"]


def test_odd_names_stay_cells() -> None:
    text = markdown_table(*wide_table([row('a|b, "c" <b>d</b>', "fvd", "1")])).splitlines()[-1]
    assert text == '| a\\|b, "c" &lt;b&gt;d&lt;/b&gt; | - | 1.00 | ok |'


def test_parameters_come_from_any_row_of_the_model() -> None:
    found = cells("pruned", row("pruned", "fvd", "1", params_m="3.456"), row("teacher", "params_m", "9"))
    assert found["params (M)"] == "3.46"


@pytest.mark.parametrize("status", ["incomplete", "failed", "unavailable"])
def test_what_was_not_measured_says_so_in_place_of_a_number(status: str) -> None:
    found = cells("student", row("student", "fvd", "", status=status), row("student", "flow_distance", "0.5"))
    assert found["FVD"] == status
    assert found["flow distance (px)"] == "0.50"
    assert found["status"] == status


def test_markdown_has_one_line_a_model() -> None:
    text = markdown_table(["model", "FVD"], [["real", "1"], ["student", "2"]])
    assert text.splitlines() == ["| model | FVD |", "| --- | ---: |", "| real | 1 |", "| student | 2 |"]


def test_a_table_in_a_file_is_not_cut_to_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    header, lines = wide_table([row("teacher", "fvd", "123.4", "1.25")])
    print_table("title", header, lines)
    printed = capsys.readouterr().out
    assert "title" in printed
    assert "123 ± 1.25" in printed
    assert all(name in printed for name in header)


def test_numbers_have_six_digits() -> None:
    assert number_text(None) == ""
    assert number_text(1234567.0) == "1.23457e+06"
    assert float(number_text(1 / 3)) == pytest.approx(1 / 3, rel=1e-5)


def test_dimensions_stand_in_lines_and_what_is_missing_has_no_number() -> None:
    common = "stand-in"
    rows = [
        replace(row("teacher", "vbench_color", "", status="unavailable"), note=f"{common}; needs weights"),
        replace(row("teacher", "vbench_temporal_flickering", "0.98765", "0.00123"), note=f"{common}; native"),
        replace(row("teacher", "vbench_total", "", status="unavailable"), note=f"{common}; 1 of 2 missing: color"),
        replace(row("student", "vbench_temporal_flickering", "", status="failed"), note=common),
        replace(row("teacher", "latency_denoiser", "45.67", params_m="3.456"), note=common),
    ]
    header, lines = wide_table(rows)
    assert header[:3] == ["metric", "teacher", "student"]
    assert lines == [
        ["params (M)", "3.46", "-", ""],
        ["denoiser (ms)", "45.7", "-", ""],
        ["temporal_flickering", "0.988 ± 0.001", "failed", "native"],
        ["Total", "unavailable", "-", "1 of 2 missing: color"],
        ["color", "unavailable", "-", "needs weights"],
    ]


COLOURS = re.compile(r"\x1b\[[0-9;]*m")
WIDE = ["suite", "model", "FVD", "a long header of many words", "status"]
LINES = [
    ["ucf101", "teacher", "123.456 ± 12.3456", "1.23457e-06 (0.987654 to 1.23457)", "ok"],
    ["ucf101", "student", "-1234.57 ± 0.12345", "a/path/that/is/longer/than/any/number.yaml", "ok"],
]


@pytest.mark.parametrize("columns", [20, 40, 60, 80, 100, 120])
def test_a_terminal_of_any_width_shows_every_number_whole(
    columns: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    print_table("title", WIDE, LINES)
    printed = COLOURS.sub("", capsys.readouterr().out)
    assert "…" not in printed
    for word in ("123.456 ± 12.3456", "-1234.57 ± 0.12345", "1.23457e-06", "0.987654", "teacher", "student"):
        assert word in printed
    # A path may go on in the next line of its cell.
    assert "".join(re.findall(r"[\w/.]", printed)).count("a/path") == 1
    framed = [line for line in printed.splitlines() if line.startswith(("│", "┃"))]
    assert all(len(line) <= columns for line in framed)
    assert bool(framed) == (columns >= 80)


def test_what_all_lines_share_is_said_once_where_room_is_scarce(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    lines = [[str(number), "a machine of some twenty", "2026-01-01T00:00:00Z", "0.5"] for number in range(3)]
    print_table("title", ["run", "machine", "date", "value"], lines)
    printed = capsys.readouterr().out
    assert "machine: a machine of some twenty; date: 2026-01-01T00:00:00Z; value: 0.5" in printed
    assert printed.count("2026-01-01T00:00:00Z") == 1


def test_colours_without_a_terminal_cut_nothing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "40")
    print_table("title", WIDE, LINES)
    printed = COLOURS.sub("", capsys.readouterr().out)
    assert all(cell in printed for line in LINES for cell in line)
    assert len({len(line) for line in printed.splitlines()[1:]}) == 1
