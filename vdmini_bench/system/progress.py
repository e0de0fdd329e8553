"""Progress on standard error: a bar with the time left on a terminal, plain lines elsewhere."""

from __future__ import annotations

import codecs
import io
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

PLAIN_LINE_SECONDS = 15.0
# What stands for characters that a console's encoding lacks; others are shown by their number.
READABLE = {"±": "+/-", "\N{MULTIPLICATION SIGN}": "x", "…": "...", "\N{EN DASH}": "-", "→": "->", "≤": "<=", "≥": ">="}


class Advance(Protocol):
    """Counts one finished item; the note says something of it."""

    def __call__(self, note: str = "") -> None: ...


def write_readable() -> None:
    """From now on no character ends the program that the encoding of its output lacks: it is written in another way."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="readable")


def _in_other_characters(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end]
    written = [READABLE.get(each) or each.encode("ascii", "backslashreplace").decode() for each in lacking]
    return "".join(written), error.end


codecs.register_error("readable", _in_other_characters)


def readable(text: str) -> str:
    """The text as standard output will show it."""
    encoding = sys.stdout.encoding or "utf-8"
    return text.encode(encoding, "readable").decode(encoding)


def say(message: str) -> None:
    """Print one line to standard error, where it never mixes with `--json` output."""
    print(message, file=sys.stderr, flush=True)


@contextmanager
def progress(label: str, total: int) -> Iterator[Advance]:
    """Show how far a long step is; the value is called once for each finished item, with a note to show beside it."""
    if sys.stderr.isatty():
        yield from _bar(label, total)
    else:
        yield from _plain(label, total)


def _bar(label: str, total: int) -> Iterator[Advance]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TextColumn("left"), TimeRemainingColumn(), console=Console(stderr=True)) as bar:
        task = bar.add_task(label, total=total)

        def advance(note: str = "") -> None:
            bar.update(task, advance=1, description=f"{label} {note}" if note else label)

        yield advance


def _plain(label: str, total: int) -> Iterator[Advance]:
    started = last = time.monotonic()
    done = 0

    def advance(note: str = "") -> None:
        nonlocal done, last
        done += 1
        now = time.monotonic()
        if now - last >= PLAIN_LINE_SECONDS and done < total:
            left = (now - started) / done * (total - done)
            say(f"  {label}: {done} of {total}, about {left:.0f} s left{f' ({note})' if note else ''}")
            last = now

    yield advance


def prepare_torch() -> None:
    """Set what torch looks for while it loads, where the user has not: to be called before.

    Its profiler prints nothing of its starts and ends. Its threads sleep while they wait for each other: awake, those
    of two processes that share cores make each other some ten times slower.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ["OMP_WAIT_POLICY"] = "passive"
        # Under GNU's OpenMP only after some microseconds, in which most waits end: to wake a thread takes longer.
        os.environ.setdefault("GOMP_SPINCOUNT", "3000")
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")


def quiet_libraries() -> None:
    """Silence the libraries' own bars and notices, which would tear ours; their errors still raise."""
    prepare_torch()
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    for library in (diffusers_logging, transformers_logging):
        library.set_verbosity_error()
        library.disable_progress_bar()
