"""Where a run's jobs go as tasks, and what comes back from there."""

from __future__ import annotations

import pickle
import signal
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from vdmini_bench.cli import main
from vdmini_bench.commands.run import place_of
from vdmini_bench.errors import BenchError, IncompleteError, SuiteError, UnreadableVideoError
from vdmini_bench.runs.execution import FailedJobError
from vdmini_bench.runs.local_tasks import FailedTaskError, LocalExecutor, LocalTask, LostTaskError, share_cores
from vdmini_bench.runs.tasks import Executor, Place, Running, Task, _may_start
from vdmini_bench.suites.job_graph import Job

JOB = Job("sample", "teacher", "key", (), 1.0)
TIMED = Job("time", "teacher", "key", (), 1.0)


@pytest.mark.parametrize(
    "problem",
    [
        FailedJobError(JOB, "ValueError: one\ntwo", Path("log.txt")),
        IncompleteError([UnreadableVideoError(Path("a.avi"), "is empty")], "encode"),
    ],
)
def test_what_went_wrong_in_a_task_comes_back_whole(problem: BenchError) -> None:
    found = pickle.loads(pickle.dumps(problem))
    assert (type(found), str(found), found.note, found.exit_code) == (
        type(problem), str(problem), problem.note, problem.exit_code,
    )  # fmt: skip


def test_what_times_has_this_machine_to_itself() -> None:
    def running(job: Job) -> dict[str, Running]:
        return {job.name: Running(Task(None, job, Path("log.txt")), None)}  # type: ignore[arg-type]

    here, cluster = Place("local", 2), Place("slurm", 2)
    assert _may_start(JOB, running(JOB), here)
    assert _may_start(TIMED, {}, here)
    assert not _may_start(TIMED, running(JOB), here)
    assert not _may_start(JOB, running(TIMED), here)
    assert _may_start(TIMED, running(JOB), cluster)
    assert not _may_start(JOB, {**running(JOB), **running(TIMED)}, cluster)


def test_timings_of_a_cluster_are_not_those_of_this_machine() -> None:
    machines = {place_of("slurm", 1, settings).machine for settings in (("slurm_partition=a",), ("slurm_partition=b",))}
    assert len({*machines, place_of("local", 1, ()).machine}) == 3


@pytest.mark.parametrize(
    ("executor", "setting", "said"),
    [
        ("local", "partition", "give KEY=VALUE"),
        ("local", "timeout_min=1", "timeout_min: a cluster's"),
        ("slurm", "slurm_colour=1", "slurm_colour"),
    ],
)
def test_a_wrong_setting_is_refused_before_any_job(
    executor: Executor, setting: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What submitit looks for to tell that there is a cluster.
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")
    with pytest.raises(SuiteError, match=said):
        place_of(executor, 1, (setting,)).executor(tmp_path, alone=False)


def test_the_command_refuses_a_setting_without_a_value(tmp_path: Path) -> None:
    found = CliRunner().invoke(
        main, ["run", "ucf101", "--results", str(tmp_path), "--executor", "slurm", "--executor-set", "partition"]
    )
    assert found.exit_code == 2
    assert "--executor-set partition: give KEY=VALUE" in found.output
    alone = CliRunner().invoke(main, ["run", "ucf101", "--executor-set", "slurm_partition=gpu", "--dry-run"])
    assert alone.exit_code == 2
    assert "--executor-set is for an executor: add --executor slurm" in alone.output


def test_tasks_of_every_process_of_a_launcher_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(SuiteError, match="without a launcher"):
        place_of("local", 1, ())


@pytest.mark.parametrize("size", [1, 1_000_000])
def test_a_task_here_answers_whatever_the_size_and_keeps_its_output(size: int, tmp_path: Path) -> None:
    assert len(finished(LocalExecutor(tmp_path).submit(partial(speak, size)))) == size
    assert [file.read_text() for file in tmp_path.iterdir()] == ["said\n"]


def test_what_a_task_here_raises_is_told_from_its_end_without_an_answer(tmp_path: Path) -> None:
    with pytest.raises(FailedTaskError, match="ValueError"):
        finished(LocalExecutor(tmp_path).submit(partial(int, "no number")))
    with pytest.raises(LostTaskError, match="ended with -9"):
        finished(LocalExecutor(tmp_path).submit(partial(signal.raise_signal, signal.SIGKILL)))
    task = LocalExecutor(tmp_path).submit(partial(time.sleep, 100))
    assert not task.done()
    task.cancel()
    with pytest.raises(LostTaskError):
        finished(task)


def test_tasks_share_the_cores_and_what_runs_alone_has_them_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.get_num_threads", lambda: 4)
    monkeypatch.setattr("torch.set_num_threads", (taken := []).append)
    for alone in (False, True):
        executor = Place("local", 2).executor(tmp_path, alone=alone)
        assert isinstance(executor, LocalExecutor)
        share_cores(executor.beside)
    share_cores(8)
    assert taken == [2, 4, 1]


def test_this_machine_needs_no_submitit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert place_of("local", 1, ()).kind == "local"
    with pytest.raises(SuiteError, match="needs submitit"):
        place_of("slurm", 1, ())


def speak(size: int) -> str:
    print("said")
    return "a" * size


def finished(task: LocalTask[Any]) -> Any:
    while not task.done():
        time.sleep(0.01)
    return task.result()
