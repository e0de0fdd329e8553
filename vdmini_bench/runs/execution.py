"""Run one job in its folder, so that whatever goes wrong becomes an error with the job's name."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from pathlib import Path

from vdmini_bench.errors import BenchError, IncompleteError
from vdmini_bench.results.store import Store
from vdmini_bench.suites.jobs import Job
from vdmini_bench.system.progress import say
from vdmini_bench.system.sharing import is_launched

LOG = "log.txt"


class FailedJobError(BenchError):
    """A job that failed; rows say why, the message also where the traceback is."""

    def __init__(self, job: Job, error: Exception, log: Path) -> None:
        super().__init__(f"{job.name} failed: {type(error).__name__}: {error} (traceback in {log})")
        self.job, self.error = job, error

    @property
    def note(self) -> str:
        """The job and its error's first line."""
        return f"{self.job.name} failed: {type(self.error).__name__}: {self.error}".partition("\n")[0]


def perform_job(store: Store, job: Job, work: Callable[[Path], None], log: Path) -> None:
    """Do a job's work in its folder and mark it done; what an interrupted attempt left there is there again.

    One process does it at a time; another that comes meanwhile waits, and takes over what is done.

    Raises:
        IncompleteError: clips could not be read.
        FailedJobError: it failed otherwise; the traceback is in `log`.
    """
    # In a launch of several processes the others have begun with the work already.
    with store.locked(job.stage, job.key, wait=not is_launched()) as waited:
        if not (waited and store.is_done(job.stage, job.key)):
            _work(store, job, work, log)


def _work(store: Store, job: Job, work: Callable[[Path], None], log: Path) -> None:
    started = time.monotonic()
    folder = store.start(job.stage, job.key)
    try:
        work(folder)
    except IncompleteError as error:
        raise IncompleteError(error.problems, job.name) from error
    except Exception as error:  # a stage may raise anything; other jobs and all results so far must survive it
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("a", encoding="utf-8") as file:
            file.write(f"{job.name}\n{traceback.format_exc()}\n")
        raise FailedJobError(job, error, log) from error
    seconds = time.monotonic() - started
    store.finish(job.stage, job.key, seconds)
    say(f"{job.name}: {seconds:.1f} s")
