"""The losses of a training as they come: in a CSV file, on the terminal, and in Accelerate's trackers."""

from __future__ import annotations

import csv
import importlib.util
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from vdmini.decoder_finetuning import FinetuneLosses
from vdmini.distill import StepLosses
from vdmini_bench.system.files import write_atomically
from vdmini_bench.system.progress import progress
from vdmini_bench.system.tables import csv_lines

LOSSES = "losses.csv"
BOARD = "tensorboard"
# The project or experiment that trackers show losses under.
NAME = "vdmini"
HEADER = [field.name for field in fields(StepLosses)]


@contextmanager
def logged(
    folder: Path, steps: int, report_to: Sequence[str] | None = None, label: str = "distil"
) -> Iterator[Callable[[StepLosses | FinetuneLosses], None]]:
    """What notes each step's losses of a training of so many steps, in `folder` and in trackers.

    The first step may be a later one, where an interrupted run goes on. Trackers of None are TensorBoard, if it is
    installed.
    """
    trackers: list[Any] | None = None
    with progress(label, steps) as advance:

        def note(losses: StepLosses | FinetuneLosses) -> None:
            nonlocal trackers
            named = asdict(losses)
            if trackers is None:
                _drop_from(losses.step, folder / LOSSES, [*named])
                trackers = _trackers(report_to, folder, losses.step)
                for _ in range(losses.step - 1):
                    advance()
            with (folder / LOSSES).open("a", newline="", encoding="utf-8") as file:
                file.write(csv_lines([[*named.values()]]))
            del named["step"]
            for tracker in trackers:
                tracker.log(named, step=losses.step)
            advance(", ".join(f"{name} {value:.3g}" for name, value in named.items()))

        try:
            yield note
        finally:
            for tracker in trackers or ():
                tracker.finish()


def _drop_from(step: int, path: Path, header: Sequence[str]) -> None:
    """Drop what was noted from `step` on: an interrupted run had come further than its checkpoint."""
    kept: list[list[str]] = []
    if path.exists():
        with path.open(newline="", encoding="utf-8") as file:
            kept = [row for row in csv.reader(file) if row[:1] and row[0].isdecimal() and int(row[0]) < step]
    write_atomically(path, csv_lines([header, *kept]))


def write_losses(folder: Path, losses: Iterable[StepLosses]) -> None:
    """Write the losses of every step, whatever a log held of them."""
    lines = [[each.step, *each.values()] for each in losses]
    write_atomically(folder / LOSSES, csv_lines([HEADER, *lines]))


def _trackers(report_to: Sequence[str] | None, folder: Path, step: int) -> list[Any]:
    """Accelerate's trackers of these names, begun; TensorBoard hides what was logged from `step` on."""
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS

    if report_to is None:
        report_to = [BOARD] if importlib.util.find_spec(BOARD) else []
    trackers: list[Any] = [
        LOGGER_TYPE_TO_CLASS[name](name, folder, purge_step=step) if name == BOARD else LOGGER_TYPE_TO_CLASS[name](NAME)
        for name in report_to
    ]
    for tracker in trackers:
        tracker.start()
    return trackers
