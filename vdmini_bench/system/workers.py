"""Decoding in other processes: results come in the order of the items, and few are held at a time."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import TypeVar

from vdmini_bench.errors import BenchError, ExitCode

Item = TypeVar("Item")
Result = TypeVar("Result")

# Each worker has one item in hand and one waiting, so that it never idles and memory does not grow with the items.
IN_FLIGHT = 2
MOST_AUTOMATIC = 8


def in_order(function: Callable[[Item], Result], items: Iterable[Item], workers: int) -> Iterator[Result]:
    """Yield `function` of every item in order; with `workers` above 1 that many spawned processes work ahead.

    `function` must be found by name in its module, and what it raises is raised here. The results do not depend on
    `workers`.

    Raises:
        BenchError: a worker was killed.
    """
    if workers <= 1:
        yield from map(function, items)
        return
    waiting: deque[Future[Result]] = deque()
    # Spawned, since a fork of a process that runs torch or holds locks may hang.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_end_with_parent)
    try:
        for item in items:
            # Processes start when there is work for them.
            with _environment("OMP_NUM_THREADS", "1"), _uninterrupted():
                waiting.append(pool.submit(function, item))
            if len(waiting) >= IN_FLIGHT * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool as error:
        raise BenchError("a worker process was killed, perhaps for memory: use fewer workers (--workers)") from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def choose_workers(asked: int | None) -> int:
    """How many processes decode: as asked; when None, several where a GPU waits for them and else this one alone.

    On a CPU the network takes every core already.
    """
    if asked is not None:
        return asked
    import torch

    if not torch.cuda.is_available():
        return 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(MOST_AUTOMATIC, cores - 1))


def _end_with_parent() -> None:
    """In a worker: end when the process that started it is gone, killed perhaps, for whom nobody else would wait."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def wait() -> None:
        parent.join()
        os._exit(ExitCode.FAILED)

    threading.Thread(target=wait, daemon=True).start()


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Start processes that Ctrl-C does not reach: the one that started them tells them to stop, without tracebacks.

    This process takes an interrupt of meanwhile afterwards.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    """Set a variable for the processes that are started meanwhile."""
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
