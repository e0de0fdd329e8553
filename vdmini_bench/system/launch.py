"""The processes of a launch: on which device each computes, and work shared out; without one, this one does it all.

The main process goes through the jobs, and at each piece of work that can be cut it calls the others, which wait for
nothing else. A clip's pixels and features depend on that clip and its batch alone, and batches are never cut, so the
results are the same to the last bit for any number of processes.
"""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from typing import TYPE_CHECKING, Any, Concatenate, NoReturn, ParamSpec, TypeVar

import numpy as np
from numpy.typing import NDArray

from vdmini_bench.errors import BenchError, ExitCode, IncompleteError, SuiteError, UnreadableVideoError
from vdmini_bench.system.progress import Advance, progress

if TYPE_CHECKING:
    import torch

# The teacher draws clips for hours, and the others wait: collectives of training keep their own, shorter limit.
PATIENCE = timedelta(days=30)
P = ParamSpec("P")
Result = TypeVar("Result")
Item = TypeVar("Item")


@dataclass(frozen=True)
class Share:
    """One process's part of some items: every `count`-th of them, from `index` on."""

    index: int = 0
    count: int = 1

    @property
    def is_main(self) -> bool:
        """Whether it is that of the process that speaks."""
        return self.index == 0

    def progress(self, label: str, total: int) -> AbstractContextManager[Advance]:
        """How far this process is, shown where it is the main one."""
        return progress(label, total) if self.is_main else nullcontext(_say_nothing)

    def of(self, items: Sequence[Item]) -> Sequence[Item]:
        """This process's items; `in_order_again` puts what came of them together."""
        return items[self.index :: self.count]


def _say_nothing(note: str = "") -> None:
    """What the other processes do where the main one shows how far it is."""


@dataclass(frozen=True)
class _Answer:
    """What came of a process's share: a value, the files it could not read, or the traceback of what failed."""

    value: Any = None
    problems: tuple[UnreadableVideoError, ...] = ()
    failure: str = ""


def in_order_again(parts: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """What came of the items that `Share.of` dealt out, in their first order; `parts` are in that of the processes."""
    whole = np.empty((sum(map(len, parts)), *parts[0].shape[1:]), dtype=parts[0].dtype)
    for index, part in enumerate(parts):
        whole[index :: len(parts)] = part
    return whole


def is_launched() -> bool:
    """Whether `accelerate launch` or torchrun started several processes, of which this is one."""
    return "LOCAL_RANK" in os.environ and process_count() > 1


def process_count() -> int:
    """How many processes there are."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def process_device() -> torch.device:
    """This process's GPU, or the CPU where there is none or where `lead` was told so."""
    import torch
    from accelerate import PartialState

    if not torch.cuda.is_available():
        return torch.device("cpu")
    device: torch.device = PartialState().device
    return device


def lead(work: Callable[[], Result], device: torch.device | None = None) -> Result:
    """Do `work` in the main process of a launch; the others help wherever it calls `share_out`, and end here with it.

    A process that is alone computes on `device`, where one is given.

    Raises:
        SuiteError: the launch is of a kind that cannot be used, or is of several processes, which have a device each.
    """
    if device is not None or is_launched():
        _join(device)
    if not is_launched():
        return work()
    if not _own_share().is_main:
        _follow()
    try:
        result = work()
    except KeyboardInterrupt:
        # The launcher ends the others, who may be in the middle of something.
        raise
    except BaseException:
        _dismiss()
        raise
    _dismiss()
    return result


def _join(device: torch.device | None) -> None:
    """Find the other processes of this launch, once and before anything else."""
    import torch

    from vdmini.distill.processes import Launched

    if device is not None and is_launched():
        raise SuiteError("--device: each process of a launch has a device of its own: leave it out")
    if device is not None and device.type == "cuda":
        torch.cuda.set_device(device)
    try:
        # Accelerate would take other accelerators than CUDA's, where models are on the CPU here.
        Launched(cpu=not torch.cuda.is_available() or (device is not None and device.type == "cpu"))
    except ValueError as error:
        raise SuiteError(str(error)) from error


def _dismiss() -> None:
    """Tell the other processes that there is nothing more to do, and close the connections.

    A process that ends with them open is aborted now and then.
    """
    from torch import distributed

    _exchange_order(None)
    distributed.destroy_process_group()


def share_out(work: Callable[Concatenate[Share, P], Result], *arguments: P.args, **named: P.kwargs) -> list[Result]:
    """Have every process do its share of `work`, a function found by name; what each returned, in their order.

    Arguments and results travel between processes by pickle.

    Raises:
        IncompleteError: clips of any share could not be read.
        BenchError: another process failed. What this one raised is raised here.
    """
    if not is_launched():
        return [work(Share(), *arguments, **named)]
    _exchange_order((work, arguments, named))
    share = _own_share()
    failed: Exception | None = None
    try:
        own = _answer(work, share, arguments, named)
    except Exception as error:  # the others are waited for all the same
        own, failed = _Answer(failure=traceback.format_exc()), error
    answers = _gather(own)
    if failed is not None:
        raise failed
    for index, answer in enumerate(answers):
        if answer.failure:
            raise BenchError(f"process {index} of {share.count} failed:\n{answer.failure}")
    problems = [problem for answer in answers for problem in answer.problems]
    if problems:
        raise IncompleteError(problems)
    return [answer.value for answer in answers]


def _answer(work: Callable[..., Any], share: Share, arguments: Sequence[Any], named: dict[str, Any]) -> _Answer:
    try:
        return _Answer(work(share, *arguments, **named))
    except IncompleteError as error:
        return _Answer(problems=tuple(error.problems))


def _follow() -> NoReturn:
    """Do this process's share of whatever the main process hands out, until it says that it is done or is gone."""
    from torch import distributed

    try:
        while (order := _exchange_order(None)) is not None:
            work, arguments, named = order
            try:
                answer = _answer(work, _own_share(), arguments, named)
            except Exception:
                answer = _Answer(failure=traceback.format_exc())
            _gather(answer)
        distributed.destroy_process_group()
    except RuntimeError:
        # The connection broke: the main process has ended, and has said why.
        raise SystemExit(ExitCode.FAILED) from None
    except KeyboardInterrupt:
        raise SystemExit(ExitCode.INTERRUPTED) from None
    raise SystemExit(ExitCode.OK)


def _own_share() -> Share:
    from torch import distributed

    return Share(distributed.get_rank(), distributed.get_world_size())


def _exchange_order(order: Any) -> Any:
    """Send an order from the main process to all others, or receive it there."""
    from torch import distributed

    box = [order]
    distributed.broadcast_object_list(box, src=0, group=_waiting_group())
    return box[0]


def _gather(answer: _Answer) -> list[_Answer]:
    """Everybody's answers in the main process, an empty list elsewhere."""
    from torch import distributed

    share = _own_share()
    answers: list[Any] | None = [None] * share.count if share.is_main else None
    distributed.gather_object(answer, answers, dst=0, group=_waiting_group())
    return answers or []


@cache
def _waiting_group() -> Any:
    """All processes, over the network and without a GPU, for what may take days."""
    from torch import distributed

    return distributed.new_group(backend="gloo", timeout=PATIENCE)
