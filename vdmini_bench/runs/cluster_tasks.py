"""Tasks that submitit gives to a Slurm cluster, which the extra `executor` installs."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Generic, TypeVar

import submitit
from submitit.core.utils import FailedJobError, UncompletedJobError

from vdmini_bench.errors import SuiteError
from vdmini_bench.runs.local_tasks import FailedTaskError, LostTaskError

Result = TypeVar("Result")


class ClusterTask(Generic[Result]):
    """Work that was given to the cluster, with the methods of a `LocalTask`."""

    def __init__(self, queued: submitit.Job[Result]) -> None:
        self._queued = queued

    def done(self) -> bool:
        """Whether it has answered, or ended without an answer."""
        return self._queued.done()

    def result(self) -> Result:
        """What the work returned; raises FailedTaskError where it raised, LostTaskError where it was killed."""
        try:
            return self._queued.result()
        except FailedJobError as error:
            raise FailedTaskError(str(error)) from error
        except UncompletedJobError as error:
            raise LostTaskError(str(error)) from error

    def cancel(self) -> None:
        """Take it from the cluster, wherever it is."""
        self._queued.cancel()


class ClusterExecutor:
    """What submits work to the cluster, whose logs go to a folder; `alone` asks for a node that nothing else uses.

    Raises SuiteError for settings that submitit's `update_parameters` does not take.
    """

    def __init__(self, folder: Path, settings: Mapping[str, str], *, alone: bool) -> None:
        notices = logging.getLogger("submitit")
        # They are on stderr too; what this process prints is its own.
        for handler in [each for each in notices.handlers if each.name == "submitit_out"]:
            notices.removeHandler(handler)
        self._executor = submitit.AutoExecutor(folder, cluster="slurm")
        given: dict[str, Any] = {name: int(text) if text.isdecimal() else text for name, text in settings.items()}
        # A task is done when it is done; a cluster's own limit holds where it has one.
        given = {"timeout_min": 60 * 24 * 7, **given, **({"slurm_exclusive": True} if alone else {})}
        try:
            self._executor.update_parameters(**given)
        except (NameError, TypeError, ValueError) as error:
            raise SuiteError(f"--executor-set: {error}") from error

    def submit(self, work: Callable[[], Result]) -> ClusterTask[Result]:
        """Queue the work."""
        return ClusterTask(self._executor.submit(work))
