"""Run a suite's jobs as tasks, several at once: processes of this machine, or a Slurm cluster's jobs by submitit."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from vdmini_bench.errors import BenchError, SuiteError
from vdmini_bench.runs.execution import Executed, FailedJobError, execute_job, skipped
from vdmini_bench.runs.local_tasks import FailedTaskError, LocalExecutor, LocalTask, LostTaskError, prepare_tasks
from vdmini_bench.suites.context import RunContext
from vdmini_bench.suites.job_graph import Job
from vdmini_bench.system.fingerprint import take_fingerprint
from vdmini_bench.system.progress import prepare_torch, quiet_libraries, say

if TYPE_CHECKING:
    from submitit.helpers import DelayedSubmission

    from vdmini_bench.runs.cluster_tasks import ClusterExecutor, ClusterTask

Executor = Literal["local", "slurm"]
# What has its machine to itself.
ALONE = ("time",)
# How often a task is begun that ended without a result, killed perhaps.
ATTEMPTS = 3
POLL_SECONDS = 0.2


@dataclass(frozen=True)
class Place:
    """Where tasks run and how many at once; `settings` of a cluster are submitit's own, such as `slurm_partition`."""

    kind: Executor
    slots: int
    settings: Mapping[str, str] = field(default_factory=dict)

    @property
    def machine(self) -> str:
        """What tells apart timings of this place from those of another; empty for this machine."""
        return "" if self.kind == "local" else f"slurm {sorted(self.settings.items())}"

    def prepare(self) -> None:
        """Begin what the first task would wait for."""
        # Tasks load torch before they come to anything of ours: they must find it in their environment.
        prepare_torch()
        if self.kind == "local":
            prepare_tasks()

    def executor(self, folder: Path, *, alone: bool) -> ClusterExecutor | LocalExecutor:
        """What submits tasks, whose logs go to a folder; raises SuiteError for settings that it does not know."""
        if self.kind == "local":
            if self.settings:
                raise SuiteError(f"--executor-set {next(iter(self.settings))}: a cluster's: add --executor slurm")
            return LocalExecutor(folder, beside=1 if alone else self.slots)
        from vdmini_bench.runs.cluster_tasks import ClusterExecutor

        return ClusterExecutor(folder, self.settings, alone=alone)


@dataclass(frozen=True)
class Task:
    """One job, done where this is called; what goes wrong with it is returned."""

    context: RunContext
    job: Job
    log: Path

    def __call__(self) -> BenchError | None:
        quiet_libraries()
        try:
            execute_job(replace(self.context, fingerprint=take_fingerprint()), self.job, self.log)
        except BenchError as problem:
            return problem
        return None

    def checkpoint(self) -> DelayedSubmission:
        """What submitit queues where the cluster preempts this: the same."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


@dataclass
class Running:
    """A task that was submitted, how often, and since when."""

    task: Task
    submitted: ClusterTask[BenchError | None] | LocalTask[BenchError | None]
    attempts: int = 1
    started: float = field(default_factory=time.monotonic)


def execute_in_tasks(context: RunContext, jobs: Iterable[Job], log: Path, place: Place) -> Iterator[Executed]:
    """As `execute`, each job in a task of its own as soon as what it needs is done; yields in the order they end.

    On this machine, what times runs alone. Tasks are cancelled when this is left; they go on where this process is
    killed, and the next call waits for them.
    """
    executors = {alone: place.executor(log.parent / "tasks", alone=alone) for alone in (False, True)}
    waiting, problems, running = {job.name: job for job in jobs}, dict[str, BenchError](), dict[str, Running]()
    try:
        while waiting or running:
            for job in [job for job in waiting.values() if not {*waiting, *running} & {*job.needs}]:
                blocked = skipped(job, problems)
                # Whether a job is done is read from disk: asked once for each, when its turn has come.
                if blocked is None and not _may_start(job, running, place):
                    continue
                del waiting[job.name]
                if blocked is not None or context.is_done(job.name):
                    problems |= {} if blocked is None else {job.name: blocked}
                    yield Executed(job, cached=blocked is None, problem=blocked)
                else:
                    task = Task(context, job, log)
                    running[job.name] = Running(task, executors[job.stage in ALONE].submit(task))
            for name, problem in _ended(running, executors):
                done = running.pop(name)
                problems |= {} if problem is None else {name: problem}
                say(f"{name}: {time.monotonic() - done.started:.1f} s in a task" + (", failed" if problem else ""))
                yield Executed(done.task.job, problem=problem)
            time.sleep(POLL_SECONDS)
    finally:
        for each in running.values():
            each.submitted.cancel()


def _ended(
    running: Mapping[str, Running], executors: Mapping[bool, ClusterExecutor | LocalExecutor]
) -> list[tuple[str, BenchError | None]]:
    """The tasks that are over, by job, and what went wrong; one that left no result is begun again, a few times."""
    ended = []
    for name, each in running.items():
        if not each.submitted.done():
            continue
        job, log = each.task.job, each.task.log
        try:
            ended.append((name, each.submitted.result()))
        except FailedTaskError as error:
            ended.append((name, FailedJobError(job, f"its task failed: {error}", log)))
        except LostTaskError as error:
            if each.attempts == ATTEMPTS:
                reason = f"its task ended {ATTEMPTS} times and left no result: {error}"
                ended.append((name, FailedJobError(job, reason, log)))
                continue
            say(f"{name}: its task ended and left no result; it is begun again")
            each.submitted, each.attempts = executors[job.stage in ALONE].submit(each.task), each.attempts + 1
    return ended


def _may_start(job: Job, running: Mapping[str, Running], place: Place) -> bool:
    if len(running) >= place.slots:
        return False
    if place.kind == "slurm":
        return True
    alone = job.stage in ALONE or any(each.task.job.stage in ALONE for each in running.values())
    return not (alone and running)
