"""Several processes, as `accelerate launch` starts them: who does what, and on which device."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from datetime import timedelta
from functools import cache
from typing import Any, NoReturn, TypeVar

import torch
from accelerate import PartialState
from torch import distributed

from vdmini.distill.processes import Launched
from vdmini_bench.errors import ExitCode, SuiteError

T = TypeVar("T")
# Encoding takes hours, and the others wait: collectives of training keep their own, shorter limit.
PATIENCE = timedelta(days=30)


def join_launch(device: torch.device | None = None) -> int:
    """Find the other processes of this launch, once and before anything else; returns how many there are.

    A process that is alone computes on `device`, where one is given.

    Raises:
        SuiteError: the launch is of a kind that cannot be used, or is of several processes, which have a device each.
    """
    if device is not None and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise SuiteError("--device: each process of a launch has a device of its own: leave it out")
    if device is not None and device.type == "cuda":
        torch.cuda.set_device(device)
    try:
        return Launched(cpu=not torch.cuda.is_available() or (device is not None and device.type == "cpu")).count
    except ValueError as error:
        raise SuiteError(str(error)) from error


def process_device() -> torch.device:
    """This process's GPU, or the CPU where there is none."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    device: torch.device = _state().device
    return device


def is_main() -> bool:
    """Whether this is the process that writes and speaks."""
    return bool(_state().is_main_process)


def on_main(work: Callable[[], T]) -> T:
    """Have the first process do something while the others wait; all get what came of it.

    When it fails, its error is raised there, and the others end without a word.
    """
    if _state().num_processes == 1:
        return work()
    group = waiting_group()
    if not is_main():
        answer: list[Any] = [None, None]
        distributed.broadcast_object_list(answer, src=0, group=group)
        if not answer[0]:
            leave(ExitCode.FAILED)
        result: T = answer[1]
        return result
    try:
        done = work()
    except Exception:
        distributed.broadcast_object_list([False, None], src=0, group=group)
        raise
    distributed.broadcast_object_list([True, done], src=0, group=group)
    return done


def part() -> None:
    """Close the connections once all is said: a process that ends with them open is aborted now and then."""
    distributed.destroy_process_group()


def leave(code: ExitCode) -> NoReturn:
    """End this process, which is not the first one, without a word and after the first one.

    The first says what was wrong, and a launcher ends all processes as soon as one has ended.
    """
    with contextlib.suppress(RuntimeError):
        distributed.barrier(waiting_group())
    raise SystemExit(code)


def _state() -> Any:
    # Accelerate would take other accelerators than CUDA's, where models are on the CPU here.
    return PartialState(cpu=not torch.cuda.is_available())


@cache
def waiting_group() -> Any:
    """All processes, over the network and without a GPU, for what may take days."""
    return distributed.new_group(backend="gloo", timeout=PATIENCE)
