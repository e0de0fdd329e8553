"""Where a run's jobs go as tasks, and what comes back from there."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
from click.testing import CliRunner

from vdmini_bench.cli import main
from vdmini_bench.commands.run import place_of
from vdmini_bench.errors import BenchError, IncompleteError, SuiteError, UnreadableVideoError
from vdmini_bench.runs.execution import FailedJobError
from vdmini_bench.runs.tasks import Place, Running, Task, _may_start
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


@pytest.mark.parametrize(("setting", "said"), [("partition", "give KEY=VALUE"), ("slurm_colour=1", "slurm_colour")])
def test_a_wrong_setting_is_refused_before_any_job(setting: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(SuiteError, match=said):
        place_of("local", 1, (setting,)).executor(tmp_path, alone=False)


def test_the_command_refuses_a_setting_without_a_value(tmp_path: Path) -> None:
    found = CliRunner().invoke(
        main, ["run", "ucf101", "--results", str(tmp_path), "--executor", "slurm", "--executor-set", "partition"]
    )
    assert found.exit_code == 2
    assert "--executor-set partition: give KEY=VALUE" in found.output


def test_tasks_of_every_process_of_a_launcher_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(SuiteError, match="without a launcher"):
        place_of("local", 1, ())
