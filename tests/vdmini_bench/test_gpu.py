"""The GPU script's budget, order and memory, with small processes in the place of its tasks."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import click
import forked
import pytest
from click.testing import CliRunner

from vdmini_bench.gpu import Task, machine_folder, main, named, run_tasks, tasks


def python(name: str, code: str, seconds: float = 1.0) -> Task:
    return Task(name, (sys.executable, "-c", code), seconds)


def noting(folder: Path, name: str) -> Task:
    return python(name, f"open({str(folder / 'order')!r}, 'a').write({name!r})")


def test_tasks_run_in_order_and_what_succeeded_is_not_run_again(tmp_path: Path) -> None:
    chosen = [noting(tmp_path, "a"), python("b", "print('why'); raise SystemExit(3)"), noting(tmp_path, "c")]
    results, left = run_tasks(chosen, tmp_path, 60)
    assert [(each.task, each.status) for each in results] == [("a", "ok"), ("b", "failed"), ("c", "ok")]
    assert not left
    assert json.loads((tmp_path / "b.json").read_text())["exit_code"] == 3
    assert "why" in results[1].tail
    run_tasks([*chosen[:1], noting(tmp_path, "b"), *chosen[2:]], tmp_path, 60)
    assert (tmp_path / "order").read_text() == "acb", "only what failed runs again"


def test_what_another_torch_did_is_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for torch, order in (("2.13.0", "a"), ("2.13.0", "a"), ("2.14.1", "aa")):
        monkeypatch.setattr("vdmini_bench.gpu.version", lambda package, torch=torch: torch)
        run_tasks([noting(tmp_path, "a")], tmp_path, 60)
        assert (tmp_path / "order").read_text() == order


def test_what_failed_waits_for_what_was_never_tried(tmp_path: Path) -> None:
    broken = python("broken", "print('x' * 9000); raise SystemExit(1)")
    run_tasks([broken], tmp_path, 60)
    assert len((tmp_path / "broken.log").read_text()) > 9000, "all that it printed"
    results, _ = run_tasks([noting(tmp_path, "broken"), noting(tmp_path, "new")], tmp_path, 60)
    assert [each.task for each in results] == ["new", "broken"]


def test_only_the_tasks_that_are_named_are_run() -> None:
    everything = tasks(Path("somewhere"))
    assert named(everything, ()) == everything
    assert [task.name for task in named(everything, ["cuda-tests"])] == ["cuda-tests"]
    with pytest.raises(click.BadParameter, match="no task cuda-test;"):
        named(everything, ["cuda-test"])


def test_a_task_that_hangs_leaves_time_for_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vdmini_bench.gpu.LEAST_LIMIT", 0.0)
    slow = python("slow", "import time; time.sleep(60)", seconds=0.3)
    results, _ = run_tasks([slow, noting(tmp_path, "a")], tmp_path, 60)
    assert [each.status for each in results] == ["out of time", "ok"]


def test_a_task_that_does_not_fit_is_passed_over_for_one_that_does(tmp_path: Path) -> None:
    chosen = [noting(tmp_path, "a"), python("long", "", seconds=500), noting(tmp_path, "b")]
    results, left = run_tasks(chosen, tmp_path, 60)
    assert [each.task for each in results] == ["a", "b"]
    assert left == ["long"]
    assert run_tasks(chosen, tmp_path, 0)[1] == ["long"], "what is there needs no budget"


def test_a_task_that_overruns_is_stopped_and_says_what_it_had_printed(tmp_path: Path) -> None:
    slow = python("slow", "import time; print('begun', flush=True); time.sleep(60)", seconds=0.1)
    results, _ = run_tasks([slow], tmp_path, 2)
    assert (results[0].status, results[0].exit_code) == ("out of time", None)
    assert "begun" in results[0].tail
    assert results[0].seconds < 30
    assert json.loads((tmp_path / "slow.json").read_text())["status"] == "out of time"


def test_a_task_that_is_stopped_takes_the_processes_it_started_with_it(tmp_path: Path) -> None:
    note = tmp_path / "still here"
    inner = f"import time; time.sleep(3); open({str(note)!r}, 'w')"
    code = f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {inner!r}]); time.sleep(60)"
    results, _ = run_tasks([python("parent", code, seconds=0.1)], tmp_path, 1.5)
    assert results[0].status == "out of time"
    time.sleep(2.5)
    assert not note.exists()


def test_every_task_is_there_once_and_names_what_exists() -> None:
    names = [task.name for task in tasks(Path("somewhere"))]
    assert len({*names}) == len(names)
    assert names[0] == "speed-svd-1-step"
    assert {"cuda-tests", "distill-step-svd", "distill-step-hunyuanvideo", "embedded-distillation"} <= {*names}
    for task in tasks(Path("somewhere")):
        assert all(Path(word).exists() for word in task.command if word.endswith((".yaml", "cuda")))


def test_without_a_gpu_it_says_so_and_ends_with_its_own_code(tmp_path: Path) -> None:
    code = (
        "import runpy, torch; torch.cuda.is_available = lambda: False;"
        "runpy.run_module('vdmini_bench.gpu', run_name='__main__')"
    )
    done = forked.run("-c", code, "--minutes", 9, "--results", tmp_path)
    assert done.returncode == 6, done.stderr
    assert "torch sees no CUDA device" in done.stderr
    assert not list(tmp_path.iterdir())


def test_the_list_shows_every_task() -> None:
    result = CliRunner().invoke(main, ["--list"])
    assert result.exit_code == 0
    assert all(task.name in result.output for task in tasks(Path("somewhere")))


@pytest.mark.parametrize("name", ["NVIDIA H200", "NVIDIA H200 NVL (MIG 1g/18)"])
def test_a_machines_folder_is_a_plain_name(name: str) -> None:
    folder = machine_folder(Path("results"), name, "0123456789ab")
    assert folder.parent == Path("results/gpu")
    assert folder.name.startswith("nvidia-h200")
    assert folder.name.endswith("-012345")
    assert "/" not in folder.name
