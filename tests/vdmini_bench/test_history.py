from __future__ import annotations

import json
from dataclasses import replace
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image
from results_of_runs import FVD, row

from vdmini_bench.cli import main
from vdmini_bench.compare.history import LEVEL, Series, collect_series, find_steps
from vdmini_bench.results.leaderboard import add_rows, latest_rows, read_leaderboard
from vdmini_bench.results.score import Row


def rows(values: list[float], **origin: str) -> list[Row]:
    return [
        row(replace(FVD, value=value), date=f"2026-01-{day:02}T00:00:00Z", run_id=str(day), commit=f"c{day}", **origin)
        for day, value in enumerate(values, start=1)
    ]


def series(values: list[float]) -> Series:
    (found,) = collect_series(rows(values), lambda row: True)
    return found


NOISE = [1.2, -0.7, 0.3, -1.4, 0.9, 0.1, -0.4, 1.1, -1.0, 0.6, -0.2, 0.8]


def test_a_step_is_found_where_it_is() -> None:
    values = [393 + NOISE[day] + (30 if day >= 7 else 0) for day in range(12)]
    (step,) = find_steps(series(values))
    assert (step.index, step.date, step.commit) == (7, "2026-01-08T00:00:00Z", "c8")
    assert step.before == pytest.approx(np.mean(values[:7]), rel=1e-5)
    assert step.after == pytest.approx(np.mean(values[7:]), rel=1e-5)
    assert step.p <= LEVEL
    assert find_steps(series(values[::-1]))[0].index == 5


def test_several_steps_are_found_and_their_levels_meet() -> None:
    values = [100 * level + NOISE[day] for level in (3, 5, 4) for day in range(8)]
    first, second = find_steps(series(values))
    assert (first.index, second.index) == (8, 16)
    assert first.after == second.before == pytest.approx(np.mean(values[8:16]))


@pytest.mark.parametrize("values", [[393.0], [393.0] * 20, [1.0, 1.0, 1.0, 9.0, 9.0], [0.0] * 8, [1.0, 2.0] * 10])
def test_what_could_be_chance_is_no_step(values: list[float]) -> None:
    assert find_steps(series(values)) == []


def test_the_share_of_shuffles_is_that_of_all_orders() -> None:
    """Of all orders of eight runs on two levels, 2 of 70 separate them as well."""
    values = [0.0] * 4 + [1.0] * 4
    split = {order for order in permutations(values) if order in ((0.0,) * 4 + (1.0,) * 4, (1.0,) * 4 + (0.0,) * 4)}
    assert len(split) / len(set(permutations(values))) == pytest.approx(2 / 70)
    (step,) = find_steps(series([value + 5 for value in values]))
    assert step.p == pytest.approx(2 / 70, abs=0.015)


def test_noise_alone_shows_a_step_about_as_often_as_the_level_says() -> None:
    random = np.random.default_rng(0)
    found = [bool(find_steps(series((400 + random.normal(0, 10, 15)).tolist()))) for _ in range(100)]
    assert sum(found) <= 12


def test_only_what_compares_is_one_series() -> None:
    same = rows([1.0, 2.0])
    others = [
        replace(same[0], **{column: "other"})
        for column in ("suite", "profile", "model", "metric", "protocol", "metric_version", "n", "machine_id")
    ]
    found = collect_series([*same, *others, replace(same[0], status="failed", value=""), same[1]], lambda row: True)
    assert sorted(len(each.points) for each in found) == [1] * len(others) + [2]
    assert len(latest_rows([*same, *others])) == len(others) + 1 - 2
    assert [each.value for each in latest_rows(same)] == ["2"]


# The commands


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["leaderboard", *map(str, arguments)])


@pytest.fixture
def board(tmp_path: Path) -> Path:
    path = tmp_path / "leaderboard.csv"
    add_rows(path, rows([393 + NOISE[day] + (30 if day >= 6 else 0) for day in range(12)]))
    add_rows(path, rows([200.0, 210.0], profile="smoke"))
    return path


def picture_of_no_step(tmp_path: Path) -> int:
    """How many red pixels it has."""
    path = tmp_path / "flat.csv"
    add_rows(path, rows([393 + noise for noise in NOISE]))
    assert invoke("history", path, "-o", tmp_path / "flat.png").exit_code == 0
    with Image.open(tmp_path / "flat.png") as image:
        red, green, _ = np.asarray(image.convert("RGB"), dtype=int).reshape(-1, 3).T
    return int((red - green > 60).sum())


def test_history_tells_the_step_and_draws_it(board: Path, tmp_path: Path) -> None:
    picture = tmp_path / "new" / "trend.png"
    shown = invoke("history", board, "--profile", "embedded", "-o", picture)
    assert shown.exit_code == 0, shown.output
    assert (
        "step in student fvd: 2026-01-07T00:00:00Z, commit c7: 393.07 to 423.15 (worse, +7.7%; p = 0.00" in shown.stdout
    )
    assert "1 steps; binary segmentation" in shown.stdout
    with Image.open(picture) as image:
        assert image.width > 600
        pixels = np.asarray(image.convert("RGB"), dtype=int).reshape(-1, 3)
    red, green, blue = pixels.T
    # Nothing else in the picture is red or blue.
    assert (red - green > 60).sum() > 100
    assert (blue - red > 60).sum() > 500
    assert picture_of_no_step(tmp_path) == 0
    output = json.loads(invoke("history", board, "--json").stdout)
    assert {each["n"] for each in output["series"]} == {FVD.n}
    assert [(each["profile"], len(each["points"]), len(each["steps"])) for each in output["series"]] == [
        ("embedded", 12, 1), ("smoke", 2, 0),
    ]  # fmt: skip
    assert invoke("history", board, "--csv", "--profile", "smoke").stdout.count("\n") == 3


def test_names_are_drawn_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "odd.csv"
    add_rows(path, [row(replace(FVD, model="$x^{$ <b>\\frac"), commit="$_$")])
    assert invoke("history", path, "-o", tmp_path / "odd.svg").exit_code == 0
    assert (tmp_path / "odd.svg").stat().st_size > 1000


def test_show_has_the_newest_of_each(board: Path) -> None:
    found = json.loads(invoke("show", board, "--json").stdout)["rows"]
    assert [(each["profile"], each["date"][:10]) for each in found] == [
        ("embedded", "2026-01-12"), ("smoke", "2026-01-02"),
    ]  # fmt: skip
    everything = invoke("show", board, "--all", "--csv")
    assert everything.stdout == board.read_text()
    assert invoke("show", board, "--model", "nobody", "--markdown").stdout.count("\n") == 2


def test_merge_joins_files_and_mends_one(board: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.csv"
    add_rows(other, [*rows([393 + NOISE[0]]), *rows([1.0], suite="other")])
    merged = invoke("merge", board, other, "-o", tmp_path / "all.csv")
    assert merged.exit_code == 0, merged.output
    assert merged.stdout.startswith("15 rows")
    header, *lines = board.read_text().splitlines(keepends=True)
    disordered = tmp_path / "union.csv"
    disordered.write_text("".join([header, *lines[::-1], header, *lines[:3], "\n"]))
    assert len(read_leaderboard(disordered)) == len(lines)
    assert invoke("merge", disordered, "-o", disordered).exit_code == 0
    assert disordered.read_bytes() == board.read_bytes()


@pytest.mark.parametrize(
    ("arguments", "code", "reason"),
    [
        (["show", "none.csv"], 2, "no such leaderboard"),
        (["merge", "none.csv", "-o", "out.csv"], 2, "no such leaderboard"),
        (["history", "BOARD", "--metric", "fdv"], 3, "no such measurement"),
        (["history", "BOARD", "-o", "trend.exe"], 2, "ends with .png"),
        (["history", "BOARD", "-o", "BOARD/x.png"], 4, "cannot be written"),
        (["merge", "BOARD", "-o", "BOARD/x.csv"], 4, "cannot be written"),
        (["show", "FOLDER"], 2, "no such leaderboard"),
    ],
)
def test_what_cannot_be_done_is_said(
    board: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], code: int, reason: str
) -> None:
    monkeypatch.chdir(tmp_path)
    places = {"BOARD": str(board), "FOLDER": str(tmp_path)}
    for name, place in places.items():
        arguments = [argument.replace(name, place) for argument in arguments]
    result = invoke(*arguments)
    assert (result.exit_code, reason in result.stderr) == (code, True), result.output
    assert isinstance(result.exception, SystemExit)
