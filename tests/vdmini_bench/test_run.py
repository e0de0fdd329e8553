"""The main job as a user runs it: real processes, real I3D weights, the embedded teacher, very few clips."""

from __future__ import annotations

import contextlib
import csv
import json
import math
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from results_of_runs import as_printed, quality
from safetensors.torch import load_file, save_file

from vdmini.models.registry import EMBEDDED
from vdmini_bench.cli import main
from vdmini_bench.data.video import read_frames
from vdmini_bench.report.examples import read_examples
from vdmini_bench.results.leaderboard import read_leaderboard
from vdmini_bench.results.records import read_records

SUITE = Path(__file__).parents[2] / "suites" / "ucf101.yaml"
FEWER = (
    "protocol.clips_per_block=3",
    "protocol.blocks=2",
    "dataset.train_clips=4",
    "dataset.drawn_test_per_group=1",
    "distill.steps=4",
    "distill.batch_size=2",
    "distill.checkpoint_every=2",
    "sample.steps=2",
    "sample.batch_size=2",
)
ROWS = {"real", "static", "teacher", "fewer steps", "pruned", "student"}
pytestmark = pytest.mark.usefixtures("i3d_weights")


def command(results: Path, *more: str) -> list[str]:
    settings = [part for setting in FEWER for part in ("--set", setting)]
    base = [sys.executable, "-m", "vdmini_bench", "run", str(SUITE), "--profile", "smoke"]
    return [*base, *settings, "--results", str(results), *more]


def run(results: Path, *more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(results, *more), capture_output=True, text=True, timeout=500, check=False)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The results of a run that nothing disturbed, what it printed, and how long the whole command took."""
    results = tmp_path_factory.mktemp("unbroken")
    started = time.monotonic()
    done = run(results, "--json")
    assert done.returncode == 0, done.stderr
    printed = {"command_seconds": time.monotonic() - started, "stderr": done.stderr}
    return results, {**json.loads(done.stdout), **printed}


def test_a_run_measures_every_row_and_labels_the_stand_in(unbroken: tuple[Path, dict[str, Any]]) -> None:
    results, output = unbroken
    assert output["status"] == "complete"
    assert {row["model"] for row in output["rows"] if row["metric"] == "fvd"} == ROWS
    assert all("not comparable with published UCF101 numbers" in row["note"] for row in output["rows"])
    assert all(row["status"] == "ok" and math.isfinite(row["value"]) for row in output["rows"])
    with (results / "leaderboard.csv").open(newline="") as file:
        written = [as_printed(row) for row in csv.DictReader(file)]
    assert sorted(written, key=str) == sorted(output["rows"], key=str)
    folder = Path(output["run_dir"])
    assert (folder / "contact_sheet.png").stat().st_size > 1000
    assert json.loads((folder / "run.json").read_text())["status"] == "complete"


def test_a_run_prints_its_own_lines_alone(unbroken: tuple[Path, dict[str, Any]]) -> None:
    lines = unbroken[1]["stderr"].splitlines()
    assert any(line.startswith("time teacher: ") for line in lines)
    assert not [line for line in lines if "profiler" in line or "warn" in line.lower()]


def test_a_run_leaves_a_report_whose_clips_are_those_of_the_models(unbroken: tuple[Path, dict[str, Any]]) -> None:
    results, output = unbroken
    folder = Path(output["run_dir"])
    page = (folder / "report.html").read_text()
    assert page.count("<article") == 6
    assert "not comparable with published UCF101 numbers" in page
    examples = read_examples(folder)
    assert examples is not None
    assert (examples.frames, examples.width, examples.height) == (10, 32, 32)
    (job,) = [
        each for each in json.loads((folder / "run.json").read_text())["jobs"] if each["name"] == "sample student"
    ]
    for example in examples.shown:
        with Image.open(folder / "examples" / example.clips["student"]) as opened:
            sheet = np.asarray(opened)
        shown = sheet.reshape(-1, 32, examples.columns, 32, 3).swapaxes(1, 2).reshape(-1, 32, 32, 3)[:10]
        clip = results / "work" / f"sample-{job['key']}" / "clips" / f"{example.name}.mkv"
        assert np.array_equal(shown, read_frames(clip, 10))
        assert {"content", "motion"} == {*example.differences["student"]}


def test_the_student_is_smaller_than_the_teacher(unbroken: tuple[Path, dict[str, Any]]) -> None:
    values = quality(unbroken[1]["rows"])
    for metric in ("params_m", "denoiser_gflops"):
        assert float(values["student", metric]) < 0.75 * float(values["teacher", metric])


def test_a_second_run_recomputes_nothing_and_repeats_its_rows(unbroken: tuple[Path, dict[str, Any]]) -> None:
    results, first = unbroken
    before = (results / "leaderboard.csv").read_bytes()
    second = json.loads(run(results, "--json").stdout)
    assert second["jobs"]["ran"] == 0
    assert second["rows"] == first["rows"]
    assert (results / "leaderboard.csv").read_bytes() == before


def test_a_damaged_result_is_made_again_and_nothing_else(unbroken: tuple[Path, dict[str, Any]]) -> None:
    results, first = unbroken
    (moments,) = (results / "work").glob("reference-*/moments.npz")
    whole, times = moments.read_bytes(), moments.stat()
    # One bit in the middle of the numbers, and no date to tell it by.
    moments.write_bytes(whole[:5000] + bytes([whole[5000] ^ 1]) + whole[5001:])
    os.utime(moments, ns=(times.st_atime_ns, times.st_mtime_ns))
    done = run(results, "--json")
    assert f"{moments.parent} was damaged" in done.stderr
    again = json.loads(done.stdout)
    assert again["jobs"]["ran"] == 1
    assert again["rows"] == first["rows"]
    assert moments.read_bytes() == whole


def test_tasks_make_what_one_process_makes_whichever_of_both_is_killed(
    unbroken: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    kills = int(os.environ.get("VDMINI_KILLS", "1"))
    results = shutil.copytree(unbroken[0], tmp_path / "results")
    # Of the whole run; one kill is of its quickest jobs.
    forgotten = ("",) if kills > 1 else ("measure", "count")
    killed: list[str] = []
    whole, process = 0, start_tasks(results, forgotten)
    while len(killed) < kills:
        moment = random.uniform(0, unbroken[1]["command_seconds"] * 0.6) if kills > 1 else 0.05
        with contextlib.suppress(subprocess.TimeoutExpired):
            assert_same_end(process, process.communicate(timeout=moment), unbroken[1])
            whole, process = whole + 1, start_tasks(results, forgotten)
            continue
        if len(killed) % 2:
            process.kill()
            process.communicate()
            killed.append(f"run, {moment:.1f} s")
            process = start_tasks(results)
        elif tasks := tasks_of(process.pid):
            os.kill(random.choice(tasks), signal.SIGKILL)
            killed.append(f"task, {moment:.1f} s")
    printed = process.communicate(timeout=900)
    assert_same_end(process, printed, unbroken[1])
    assert kills > 1 or printed[1].count("left no result; it is begun again") == 1
    print(f"killed {len(killed)} times, came to its end {whole + 1} times, killed: {killed}")


def start_tasks(results: Path, forgotten: tuple[str, ...] = ()) -> subprocess.Popen[str]:
    """Start a run in two slots, without what stages of these beginnings left."""
    for folder in results.glob("work/*-*"):
        if folder.name.startswith(forgotten):
            shutil.rmtree(folder, ignore_errors=True)
    arguments = command(results, "--json", "--executor", "local", "--slots", "2")
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def assert_same_end(process: subprocess.Popen[str], printed: tuple[str, str], unbroken: dict[str, Any]) -> None:
    """The run is complete, and its numbers are those of the unbroken one."""
    assert process.returncode == 0, printed[1]
    output = json.loads(printed[0])
    assert output["status"] == "complete"
    assert quality(output["rows"]) == quality(unbroken["rows"])


def tasks_of(run: int) -> list[int]:
    """The tasks of a run: what was forked from the process that it started for that."""
    servers = [each for each in children_of(run) if b"forkserver" in Path(f"/proc/{each}/cmdline").read_bytes()]
    return [task for server in servers for task in children_of(server)]


def children_of(parent: int) -> Iterator[int]:
    """The processes that one started."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            if int(stat.read_text().rpartition(")")[2].split()[1]) == parent:
                yield int(stat.parent.name)


def test_interrupted_and_killed_again_and_again_ends_with_the_same_numbers(
    unbroken: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    interrupt_first_job(tmp_path)
    kills: list[float] = []
    whole = 0
    while len(kills) < int(os.environ.get("VDMINI_KILLS", "1")):
        process = subprocess.Popen(command(tmp_path, "--json"), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        # Anywhere in the run, however slow this machine is.
        moment = random.uniform(0, unbroken[1]["command_seconds"] * 0.6)
        try:
            rows = json.loads(process.communicate(timeout=moment)[0])["rows"]
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            kills.append(round(moment, 2))
            continue
        # It came to its end before it was killed: its numbers count, and the next begins anew.
        assert quality(rows) == quality(unbroken[1]["rows"]), kills
        whole += 1
        shutil.rmtree(tmp_path / "work")
    done = run(tmp_path, "--json")
    assert done.returncode == 0, (done.stderr, kills)
    assert quality(json.loads(done.stdout)["rows"]) == quality(unbroken[1]["rows"]), kills
    print(f"killed {len(kills)} times, came to its end {whole + 1} times, at {kills} s")


def interrupt_first_job(results: Path) -> None:
    """Start the run, press Ctrl-C after its first job, and see that it stops cleanly and says how to go on."""
    process = subprocess.Popen(command(results), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("encode:"):
            break
    process.send_signal(signal.SIGINT)
    said = process.stderr.read()
    assert process.wait(timeout=100) == 130, said
    assert said.endswith("interrupted; the same command continues where it stopped\n")
    assert "Traceback" not in said
    process.stderr.close()


def test_an_unreadable_clip_makes_the_run_incomplete_and_is_named(
    unbroken: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    results = unbroken[0]
    (index,) = (results / "data").glob("index-*-condition.json")
    (root,) = (results / "data").glob("drawn-*/UCF-101")
    victim = root / min(json.loads(index.read_text()))
    whole, times = victim.read_bytes(), victim.stat()
    victim.write_bytes(whole[:200])
    try:
        done = run(results, "--json", "--set", "timing.runs=3")
    finally:
        victim.write_bytes(whole)
        os.utime(victim, ns=(times.st_atime_ns, times.st_mtime_ns))
    output = json.loads(done.stdout)
    assert done.returncode == 3, done.stderr
    assert output["status"] == "incomplete"
    assert victim.name in done.stderr
    broken = [row for row in output["rows"] if row["status"] == "incomplete"]
    assert broken
    assert all(row["value"] is None for row in broken)


def test_compare_pairs_teacher_and_student(unbroken: tuple[Path, dict[str, Any]]) -> None:
    arguments = [sys.executable, "-m", "vdmini_bench", "compare", "teacher", "student", "--json"]
    done = subprocess.run(
        [*arguments, "--results", str(unbroken[0]), "--run", unbroken[1]["run_dir"]],
        capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    output = json.loads(done.stdout)
    fvd = next(row for row in output["rows"] if row["metric"] == "fvd")
    assert fvd["delta"] == pytest.approx(fvd["b"] - fvd["a"])
    assert fvd["ci"][0] <= fvd["delta"] <= fvd["ci"][1]
    assert output["speedup"] > 0


def test_a_run_says_of_each_number_where_it_is_from(unbroken: tuple[Path, dict[str, Any]]) -> None:
    records = read_records(Path(unbroken[1]["run_dir"]))
    assert [record.row.to_json() for record in records] == unbroken[1]["rows"]
    assert all(record.conditions for record in records)


def test_a_run_gates_against_itself_a_loss_and_another_machine(
    unbroken: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    def gate(run: Path, *more: str) -> int:
        arguments = ["gate", str(run), "--baseline", str(tmp_path / "baseline.csv"), *more]
        return CliRunner().invoke(main, arguments).exit_code

    thresholds = tmp_path / "thresholds.yaml"
    thresholds.write_text("version: 1\nmodels: [student]\nmetrics: {fvd: {relative: 0.05}, params_m: {absolute: 0}}\n")
    limits = ("--thresholds", str(thresholds))
    first = Path(unbroken[1]["run_dir"])
    assert gate(first, "--update") == 0
    assert gate(first) == gate(first, *limits) == 0
    changes: tuple[tuple[str, Callable[[dict[str, Any]], dict[str, Any]], int], ...] = (
        ("worse", lambda line: {**line, "value": 1.1 * line["value"]} if line["metric"] == "fvd" else line, 1),
        ("elsewhere", lambda line: {**line, "origin": {**line["origin"], "machine_id": "another"}}, 5),
        ("less", lambda line: {**line, "metric": line["metric"].replace("fvd", "other")}, 3),
    )
    for name, change, code in changes:
        folder = tmp_path / name
        shutil.copytree(first, folder)
        lines = map(json.loads, (first / "results.jsonl").read_text().splitlines())
        (folder / "results.jsonl").write_text("".join(json.dumps(change(line)) + "\n" for line in lines))
        assert gate(folder, *limits) == code, name


def test_leaderboard_of_a_run_reads_back(unbroken: tuple[Path, dict[str, Any]]) -> None:
    rows = read_leaderboard(unbroken[0] / "leaderboard.csv")
    assert {row.model for row in rows} == ROWS


def test_a_teacher_with_a_weight_that_is_no_number_fails_and_other_rows_are_kept(tmp_path: Path) -> None:
    teacher, results = tmp_path / "teacher", tmp_path / "results"
    shutil.copytree(EMBEDDED["embedded/svd"], teacher)
    (file,) = (teacher / "unet").glob("*.safetensors")
    weights = load_file(file)
    weights["conv_in.weight"].view(-1)[5] = float("nan")
    save_file(weights, file, metadata={"format": "pt"})
    done = run(results, "--set", f"teacher={teacher}", "--json")
    assert done.returncode == 4, done.stderr
    rows = json.loads(done.stdout)["rows"]
    assert {row["model"]: row["status"] for row in rows if row["metric"] == "fvd"} == {
        **dict.fromkeys(("real", "static"), "ok"),
        **dict.fromkeys(("teacher", "fewer steps", "pruned", "student"), "failed"),
    }
    failed = [row for row in rows if row["status"] == "failed"]
    assert all("NotFiniteError: unet.conv_in.weight: 1 of " in row["note"] for row in failed)
    assert not any(row["value"] for row in failed)
    assert not list(results.glob("work/sample-*/clips/*"))


def test_a_run_and_time_time_alike_and_keep_the_same_record(
    unbroken: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    timed = ["time", "embedded/svd", "--steps", "2", "--scope", "denoiser", "--no-blocks", "--dtype", "float32"]
    result = CliRunner().invoke(main, [*timed, "--device", "cpu", "-o", str(tmp_path)])
    assert result.exit_code == 0, result.output
    rows = [record.row for folder in (Path(unbroken[1]["run_dir"]), tmp_path) for record in read_records(folder)]
    found = [row for row in rows if (row.model, row.metric) == ("teacher", "latency_denoiser")]
    assert len(found) == 2
    assert len({(row.metric_version, row.protocol, row.unit) for row in found}) == 1
    of_run = sorted(unbroken[0].glob("work/time-*/speed.json"))
    # The pruned model and its student take the same time.
    assert len(of_run) == 3
    kept, by_time = (json.loads(file.read_text()) for file in (of_run[0], tmp_path / "speed.json"))
    assert kept.keys() == by_time.keys()
    assert kept["rows"][0].keys() == by_time["rows"][0].keys()
