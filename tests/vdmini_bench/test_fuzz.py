"""Files and names that nobody wrote on purpose: every one is read or refused in words, and none ends in a traceback.

Over 2,000 cases in all, of which most are small damages to files that are right, since random text seldom gets far.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from reported_runs import write_run
from results_of_runs import FVD, USUAL, row, write_results

from vdmini.errors import PlanError
from vdmini.plan import PruningPlan
from vdmini_bench.cli import main
from vdmini_bench.compare.baseline import read_baseline
from vdmini_bench.compare.gate import judge
from vdmini_bench.compare.history import collect_series, find_steps
from vdmini_bench.compare.result_sets import find_result_set
from vdmini_bench.config.suite import load_suite
from vdmini_bench.config.thresholds import DEFAULT, load_thresholds
from vdmini_bench.data.ucf101 import LIST_FOLDER, read_split
from vdmini_bench.data.video import read_every_frame, read_frames, read_timeline, video_facts
from vdmini_bench.data.video_folder import SUFFIXES, list_videos
from vdmini_bench.errors import BenchError, SuiteError, UnreadableVideoError
from vdmini_bench.report.page import write_report
from vdmini_bench.results.leaderboard import add_rows, read_leaderboard, rows_to_csv
from vdmini_bench.results.records import read_records
from vdmini_bench.results.score import COLUMNS, Row
from vdmini_bench.results.store import Store
from vdmini_bench.system.tables import csv_lines, markdown_table
from vdmini_bench.vbench.completeness import measure_video
from vdmini_bench.vbench.native.frames import read_clip

ROOT = Path(__file__).parents[2]
PLAN = PruningPlan("svd", "0" * 64, "vdmini", ("a", "b"), ("c",), (("a", "b"),)).to_json()
LIST = "".join(f"Archery/v_Archery_g{group:02}_c01.avi {group}\n" for group in range(1, 6))
BOARD = rows_to_csv(row(replace(FVD, model=model)) for model in ("teacher", "student"))
# Without its task, whose options are checked by code that imports torch.
SUITE = "".join(
    line
    for line in (ROOT / "suites" / "ucf101.yaml").read_text(encoding="utf-8").splitlines(keepends=True)
    if "task" not in line
)
RESULTS = json.dumps(FVD.to_json()) + "\n"
# What parsers trip over, beside any text.
TOKENS = st.sampled_from(
    ["", "\x00", "\r", "\n", "\t", "\ufeff", "\u2028", "\x85", "\x1b[31m", "\ud7ff", "🎬", '"', "'", "'''", ",", ";",
     ":", "- ", "? ", "!!float x", "!!int 9_", "!!python/object:os.system", "!!timestamp x", "&a", "*a", "<<: ", "{",
     "}", "[", "]", "|", ">", "%", "@", "`", "#", "~", "null", "true", ".nan", "-.inf", "1e400", "9" * 30, "0x",
     "1_000", "2001-01-01", "=1+1", "../", "/", "\\", "extends: smoke", "embedded", "NaN", "Infinity", "-0", "[" * 200,
     "{a: " * 50, "<<<<<<< HEAD"]
)  # fmt: skip
PIECES = TOKENS | st.text(max_size=6)
FAST = {"deadline": None, "suppress_health_check": [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]}


def damaged(text: str) -> st.SearchStrategy[str]:
    """A text with up to four places overwritten or cut, or any text at all."""
    edit = st.tuples(st.integers(0, len(text)), st.integers(0, 40), PIECES)

    def apply(edits: list[tuple[int, int, str]]) -> str:
        changed = text
        for start, removed, inserted in edits:
            changed = changed[:start] + inserted + changed[start + removed :]
        return changed

    return st.lists(edit, min_size=1, max_size=4).map(apply) | st.lists(PIECES, max_size=12).map("".join)


def write(path: Path, text: str) -> Path:
    path.write_bytes(text.encode("utf-8", errors="surrogatepass"))
    return path


def refused_in_words(read: Callable[[], object], *expected: type[Exception]) -> None:
    """Read, or be refused by an error of ours, whose message is no empty one."""
    try:
        read()
    except expected as error:
        message = str(error)
    else:
        return
    assert message.strip()


@given(damaged(BOARD))
@settings(max_examples=400, **FAST)
def test_leaderboards(tmp_path: Path, text: str) -> None:
    path = write(tmp_path / "board.csv", text)

    def use() -> None:
        rows = read_leaderboard(path)
        add_rows(path, [row(FVD)])
        # What a spreadsheet rewrites, the commit and whether code was changed, makes no other measurement.
        assert row(FVD, commit="", dirty="") in [replace(each, commit="", dirty="") for each in read_leaderboard(path)]
        for series in collect_series(rows, lambda each: True):
            find_steps(series)
        judge([row(FVD, run_id="new")], read_baseline(path), load_thresholds())

    refused_in_words(use, BenchError)


@given(st.lists(st.lists(PIECES, min_size=len(COLUMNS), max_size=len(COLUMNS)), max_size=3))
@settings(max_examples=100, **FAST)
def test_cells_of_any_text_come_back_and_run_nowhere(tmp_path: Path, cells: list[list[str]]) -> None:
    path = tmp_path / "cells.csv"
    path.unlink(missing_ok=True)
    add_rows(path, [Row(*line) for line in cells])
    assert len(read_leaderboard(path)) <= len(cells)
    table = csv_lines([COLUMNS, *cells]) + markdown_table([*COLUMNS], cells)
    assert "<" not in table.split("| ---")[-1]


@given(damaged(DEFAULT.read_text(encoding="utf-8")))
@settings(max_examples=300, **FAST)
def test_thresholds(tmp_path: Path, text: str) -> None:
    path = write(tmp_path / "thresholds.yaml", text)

    def use() -> None:
        found = load_thresholds(path)
        judge([row(score, run_id="new") for score in USUAL], [row(score) for score in USUAL], found)

    refused_in_words(use, SuiteError)
    with suppress(SuiteError):
        load_thresholds(path)
        return
    # Every refusal says where.
    with pytest.raises(SuiteError, match=r"thresholds\.yaml:(\d+:(\d+:)?)? "):
        load_thresholds(path)


@given(damaged(SUITE), st.sampled_from([None, "embedded", "smoke", "paper", "\n"]), st.lists(PIECES, max_size=1))
@settings(max_examples=400, **FAST)
def test_suites(tmp_path: Path, text: str, profile: str | None, overrides: list[str]) -> None:
    path = write(tmp_path / "suite.yaml", text)
    refused_in_words(lambda: load_suite(path, profile, tuple(overrides)).sha, SuiteError)


@given(damaged(PLAN))
@settings(max_examples=300, **FAST)
def test_plans(text: str) -> None:
    refused_in_words(lambda: PruningPlan.from_json(text), PlanError)


@given(damaged(LIST), st.sampled_from(["01", "03", "../01"]))
@settings(max_examples=300, **FAST)
def test_split_lists(tmp_path: Path, text: str, split: str) -> None:
    (tmp_path / LIST_FOLDER).mkdir(exist_ok=True)
    for name in ("trainlist01.txt", "testlist01.txt", "trainlist03.txt", "testlist03.txt"):
        write(tmp_path / LIST_FOLDER / name, text)

    def use() -> None:
        for video in read_split(tmp_path, split).train:
            # No list reaches outside the data set.
            assert (tmp_path / "UCF-101") in video.path.resolve().parents

    refused_in_words(use, SuiteError)


@given(damaged(RESULTS), st.one_of(st.none(), damaged('{"status": "complete", "suite": {"name": "s"}}')))
@settings(max_examples=200, **FAST)
def test_records_of_runs(tmp_path: Path, text: str, run: str | None) -> None:
    folder = tmp_path / "run"
    folder.mkdir(exist_ok=True)
    write(folder / "results.jsonl", text)
    (folder / "run.json").unlink(missing_ok=True)
    if run is not None:
        write(folder / "run.json", run)
    refused_in_words(
        lambda: judge([record.row for record in read_records(folder)], [row(FVD)], load_thresholds()), BenchError
    )


WRONG = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | PIECES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(PIECES, inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from(["suite", "fingerprint", "inputs", "warnings", "jobs", "argv"]), WRONG))
@settings(max_examples=150, **FAST)
def test_reports_of_runs_with_any_record(tmp_path: Path, changed: dict[str, Any]) -> None:
    if not (tmp_path / "runs").exists():
        write_run(tmp_path)
    (path,) = tmp_path.glob("runs/*/run.json")
    record = {"status": "complete", "suite": {"name": "s"}, **changed}
    path.write_text(json.dumps(record))
    refused_in_words(lambda: write_report(path.parent), BenchError)


@given(st.sampled_from(["examples.json", "losses.csv"]), st.data())
@settings(max_examples=200, **FAST)
def test_reports_of_runs_with_damaged_files(tmp_path: Path, name: str, data: st.DataObject) -> None:
    if not (tmp_path / "runs").exists():
        write_run(tmp_path)
    (path,) = tmp_path.rglob(name)
    whole = path.read_text()
    try:
        write(path, data.draw(damaged(whole[-1500:])))
        refused_in_words(lambda: write_report(next(tmp_path.glob("runs/*"))), BenchError)
    finally:
        path.write_text(whole)


NAMES = st.text(min_size=1, max_size=60) | PIECES | st.sampled_from(["a" * 300, ".", "..", "-", "--", "~", "run-1:"])


@given(NAMES, st.sampled_from(SUFFIXES))
@settings(max_examples=150, **FAST)
def test_names_of_videos(tmp_path: Path, name: str, suffix: str) -> None:
    folder = tmp_path / "videos"
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}{suffix}"
    try:
        path.touch()
    except (OSError, ValueError):
        assume(False)
    try:
        refused_in_words(lambda: list_videos(folder), SuiteError)
    finally:
        if path.exists() and path.parent == folder:
            path.unlink()


@given(NAMES)
@settings(max_examples=150, **FAST)
def test_names_of_models_and_runs(tmp_path: Path, name: str) -> None:
    store = Store(tmp_path / "results")
    if not (store.root / "runs").exists():
        write_results(store.root / "runs" / "run-1", USUAL)
    refused_in_words(lambda: find_result_set(name, store), BenchError)


CONTAINERS = {
    "mp4": "libx264 yuv420p", "mov": "mpeg4 yuv420p", "mkv": "ffv1 bgr0", "webm": "libvpx-vp9 yuv420p",
    "avi": "mpeg4 yuv420p", "gif": "gif rgb8", "flv": "libx264 yuv420p", "ts": "mpeg2video yuv420p",
}  # fmt: skip


@pytest.fixture(scope="module")
def containers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """A video of 12 frames in each container, whose names for things are not all in ASCII."""
    found = {}
    for suffix, kind in CONTAINERS.items():
        path = tmp_path_factory.mktemp("whole") / f"clip.{suffix}"
        codec, pixels = kind.split()
        with av.open(str(path), "w") as container:
            container.metadata["title"] = "a cat café 🎬"
            stream = container.add_stream(codec, rate=25)
            stream.height, stream.width, stream.pix_fmt = 32, 48, pixels
            for level in range(12):
                picture = np.full((32, 48, 3), 20 * level, np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            container.mux(stream.encode(None))
        found[suffix] = path.read_bytes()
    return found


@st.composite
def damages(draw: st.DrawFn, whole: dict[str, bytes]) -> tuple[str, bytes]:
    """The suffix and the bytes of a video, overwritten, cut and grown at up to eight places, its head's above all."""
    suffix = draw(st.sampled_from(sorted(whole)))
    content = bytearray(whole[suffix])
    for _ in range(draw(st.integers(1, 8))):
        start = draw(st.integers(0, 600) | st.integers(0, len(content)) | st.integers(1, 900).map(lambda n: -n))
        piece = draw(st.binary(max_size=6) | st.sampled_from([b"\xff" * 4, bytes(4), b"\x7f\xff\xff\xff"]))
        removed = draw(st.sampled_from([len(piece), len(piece), 0, 1, 40, len(content)]))
        content[start : len(content) if start < 0 and -start <= removed else start + removed] = piece
    return suffix, bytes(content)


def read_in_every_way(path: Path) -> None:
    """Whether and how frames come is for other tests; here each way must end, and refuse in words."""
    for read in (
        lambda: read_frames(path, 5),
        lambda: read_frames(path, 5, 7),
        lambda: read_frames(path, 5, 24000 / 1001, offset_seed=1),
        lambda: read_every_frame(path),
        lambda: video_facts(path),
        lambda: (read_timeline(path).count(30), read_timeline(path).has_rate(25)),
        lambda: measure_video(path),
        lambda: read_clip(path),
    ):
        refused_in_words(read, UnreadableVideoError)


@given(st.data())
@settings(max_examples=150, **FAST)
def test_containers(tmp_path: Path, containers: dict[str, bytes], data: st.DataObject) -> None:
    suffix, content = data.draw(damages(containers))
    path = tmp_path / f"clip.{suffix}"
    path.write_bytes(content)
    read_in_every_way(path)


@given(st.data())
@settings(max_examples=25, **FAST)
def test_containers_on_the_command_line(tmp_path: Path, containers: dict[str, bytes], data: st.DataObject) -> None:
    folders = [tmp_path / "teacher", tmp_path / "student"]
    damaged_one = data.draw(damages({"mp4": containers["mp4"], "avi": containers["avi"], "gif": containers["gif"]}))
    for folder in folders:
        folder.mkdir(exist_ok=True)
        for path in folder.iterdir():
            path.unlink()
        for name in ("0.mp4", "1.mp4"):
            (folder / name).write_bytes(containers["mp4"])
    (folders[1] / "1.mp4").unlink()
    (folders[1] / f"1.{damaged_one[0]}").write_bytes(damaged_one[1])
    result = CliRunner().invoke(
        main, ["compare", *map(str, folders), "--clips", "--frame-network", "none", "--results", str(tmp_path / "r")]
    )
    assert result.exit_code in (0, 2, 3, 5), result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)


# No process can be given a null.
ARGUMENTS = NAMES.filter(lambda name: "\x00" not in name)


@given(ARGUMENTS, ARGUMENTS)
@settings(max_examples=40, **FAST)
def test_names_on_the_command_line(tmp_path: Path, run: str, baseline: str) -> None:
    root = tmp_path / "results"
    if not (root / "runs").exists():
        write_results(root / "runs" / "run-1", USUAL)
    for arguments in (
        ["gate", "--results", str(root), "--baseline", str(tmp_path / "none" / baseline[:20]), "--", run],
        ["gate", "--results", str(root), "--baseline", baseline, "--thresholds", run, "--", "run-1"],
        ["compare", "--results", str(root), "--", run, baseline],
        ["leaderboard", "show", "--", run],
        ["compare", "--results", str(root), "--suite", run, "student", "student"],
    ):
        result = CliRunner().invoke(main, arguments)
        assert result.exit_code in (0, 2, 3, 4, 5), result.output
        assert result.exception is None or isinstance(result.exception, SystemExit)
        assert "unexpected" not in result.stderr
