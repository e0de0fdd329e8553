"""Tasks in processes of this machine, forked from one that has imported what they need: that alone takes seconds."""

from __future__ import annotations

import multiprocessing
import os
import signal
import traceback
from collections.abc import Callable
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

from vdmini_bench.results.versions import STAGE_VERSIONS

if TYPE_CHECKING:
    from multiprocessing.context import ForkServerContext

Result = TypeVar("Result")
FORKED: ForkServerContext = multiprocessing.get_context("forkserver")
IMPORTED = ["vdmini_bench.runs.tasks", *(f"vdmini_bench.runs.stages.{name}" for name in STAGE_VERSIONS)]


class FailedTaskError(Exception):
    """Work that raised in its task: the traceback."""


class LostTaskError(Exception):
    """A task that ended without an answer, killed perhaps."""


def prepare_tasks() -> None:
    """Start the process that tasks are forked from, which imports beside what this one does."""
    import torch

    # Who asked for CUDA's devices, as imports do, cannot use them in a fork: there each task imports by itself.
    FORKED.set_forkserver_preload([] if torch.cuda.is_available() else IMPORTED)
    # Ctrl-C is for this process: its tasks are cancelled, and say nothing of it.
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        forkserver.ensure_running()
    finally:
        signal.signal(signal.SIGINT, handler)


class LocalTask(Generic[Result]):
    """Work in a process of its own, one of `beside` that share the cores; its output goes to a file in a folder."""

    def __init__(self, work: Callable[[], Result], folder: Path, beside: int = 1) -> None:
        self._answer, sender = FORKED.Pipe(duplex=False)
        self._process = FORKED.Process(target=_work, args=(work, sender, folder, beside))
        self._process.start()
        sender.close()

    def done(self) -> bool:
        """Whether it has answered, or ended without an answer."""
        return self._answer.poll()

    def result(self) -> Result:
        """What the work returned; raises FailedTaskError where it raised, LostTaskError where it was killed."""
        try:
            result, failure = self._answer.recv()
        except (EOFError, OSError):  # killed, perhaps in the middle of its answer
            self._process.join()
            raise LostTaskError(f"process {self._process.pid} ended with {self._process.exitcode}") from None
        self._process.join()
        if failure:
            raise FailedTaskError(failure)
        answer: Result = result
        return answer

    def cancel(self) -> None:
        """End it wherever it is: files appear whole or not at all."""
        self._process.kill()


class LocalExecutor:
    """What submits work to processes of this machine, `beside` at once, whose logs go to a folder."""

    def __init__(self, folder: Path, beside: int = 1) -> None:
        self._folder, self.beside = folder, beside

    def submit(self, work: Callable[[], Result]) -> LocalTask[Result]:
        """Begin the work at once."""
        return LocalTask(work, self._folder, self.beside)


def _work(work: Callable[[], Result], sender: Connection, folder: Path, beside: int) -> None:
    share_cores(beside)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{os.getpid()}.log").open("ab") as log:
        for stream in (1, 2):
            os.dup2(log.fileno(), stream)
    try:
        sender.send((work(), ""))
    except Exception:  # whatever it is, who waits says it
        sender.send((None, traceback.format_exc()))


def share_cores(beside: int) -> None:
    """Leave this process its part of torch's threads: more threads than cores wait for each other."""
    import torch

    torch.set_num_threads(max(1, torch.get_num_threads() // beside))
