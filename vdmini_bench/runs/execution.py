"""Run jobs in their folders, so that whatever goes wrong becomes an error with the job's name."""

from __future__ import annotations

import time
import traceback
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from vdmini_bench.errors import BenchError, IncompleteError
from vdmini_bench.runs.stages import stage_named
from vdmini_bench.suites.context import RunContext
from vdmini_bench.suites.job_graph import Job
from vdmini_bench.system.progress import say

LOG = "log.txt"


class FailedJobError(BenchError):
    """A job that failed; rows say why, the message also where the traceback is."""

    def __init__(self, job: Job, reason: str, log: Path) -> None:
        super().__init__(f"{job.name} failed: {reason} (traceback in {log})")
        self.job, self.reason, self.log = job, reason, log

    def __reduce__(self) -> tuple[type[FailedJobError], tuple[Job, str, Path]]:
        return FailedJobError, (self.job, self.reason, self.log)

    @property
    def note(self) -> str:
        """The job and its error's first line."""
        return f"{self.job.name} failed: {self.reason}".partition("\n")[0]


class SkippedError(BenchError):
    """A job that was not run because of another; it ends the run as that other does."""

    def __init__(self, message: str, cause: BenchError) -> None:
        super().__init__(message)
        self.exit_code, self.cause = cause.exit_code, cause

    @property
    def note(self) -> str:
        """That of the job which failed."""
        return self.cause.note


@dataclass(frozen=True)
class Executed:
    """A job that was come to: whether it was done before, or what went wrong."""

    job: Job
    cached: bool = False
    problem: BenchError | None = None


def execute(context: RunContext, jobs: Iterable[Job], log: Path | None = None) -> Iterator[Executed]:
    """Run those of the jobs that are not done yet, in order; a failed one stops only what needs it.

    `log` takes tracebacks, the results folder's own when None.
    """
    problems: dict[str, BenchError] = {}
    for job in jobs:
        if (blocked := skipped(job, problems)) is not None:
            problems[job.name] = blocked
        elif context.is_done(job.name):
            yield Executed(job, cached=True)
            continue
        else:
            try:
                execute_job(context, job, log)
            except BenchError as problem:
                problems[job.name] = problem
        yield Executed(job, problem=problems.get(job.name))


def skipped(job: Job, problems: Mapping[str, BenchError]) -> SkippedError | None:
    """Why a job is not run, where one that it needs is among those with problems."""
    blocked = next((need for need in job.needs if need in problems), None)
    if blocked is None:
        return None
    return SkippedError(f"{job.name}: not run, since it needs {blocked!r}", problems[blocked])


def execute_needed(context: RunContext, names: Collection[str]) -> list[Executed]:
    """Run the jobs of these names and all that they need.

    Raises:
        BenchError: one failed; what is done is kept.
    """
    executed = []
    for each in execute(context, context.graph.needed({*names})):
        if each.problem is not None:
            raise each.problem
        executed.append(each)
    return executed


def execute_job(context: RunContext, job: Job, log: Path | None = None) -> None:
    """Do a job's work in its folder and mark it done; what an interrupted attempt left there is there again.

    One process does it at a time; another that comes meanwhile waits, and takes over what is done.

    Raises:
        IncompleteError: clips could not be read.
        FailedJobError: it failed otherwise; the traceback is in `log`.
    """
    with context.store.locked(job.stage, job.key) as waited:
        if not (waited and context.is_done(job.name)):
            _work(context, job, log or context.store.root / LOG)


def _work(context: RunContext, job: Job, log: Path) -> None:
    started, store = time.monotonic(), context.store
    folder = store.start(job.stage, job.key)
    try:
        stage_named(job.stage)(context, job.subject, folder)
    except IncompleteError as error:
        raise IncompleteError(error.problems, job.name) from error
    except Exception as error:  # a stage may raise anything; other jobs and all results so far must survive it
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("a", encoding="utf-8") as file:
            file.write(f"{job.name}\n{traceback.format_exc()}\n")
        raise FailedJobError(job, f"{type(error).__name__}: {error}", log) from error
    seconds = time.monotonic() - started
    store.finish(job.stage, job.key, seconds)
    say(f"{job.name}: {seconds:.1f} s")
