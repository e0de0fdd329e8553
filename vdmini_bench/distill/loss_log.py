"""The losses of a distillation as they come: in a CSV file, on the terminal, and in Accelerate's trackers."""

from __future__ import annotations

import csv
import importlib.util
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from vdmini.distill import StepLosses
from vdmini_bench.system.files import write_atomically
from vdmini_bench.system.progress import progress
from vdmini_bench.system.tables import csv_lines

LOSSES = "losses.csv"
BOARD = "tensorboard"
# The project or experiment that trackers show losses under.
NAME = "vdmini"
HEADER = [field.name for field in fields(StepLosses)]


class LossLog:
    """Takes the losses of each step in turn; the first may be a later step, where an interrupted run goes on."""

    def __init__(self, folder: Path, advance: Any, report_to: Sequence[str] | None) -> None:
        self.path, self.advance, self.report_to = folder / LOSSES, advance, report_to
        self.begun = False
        self.trackers: list[Any] = []

    def add(self, losses: StepLosses) -> None:
        """Note one step."""
        if not self.begun:
            self._go_on_from(losses.step)
        with self.path.open("a", newline="", encoding="utf-8") as file:
            file.write(csv_lines([[losses.step, *losses.values()]]))
        named = {name: value for name, value in asdict(losses).items() if name != "step"}
        for tracker in self.trackers:
            tracker.log(named, step=losses.step)
        self.advance(", ".join(f"{name} {value:.3g}" for name, value in named.items()))

    def close(self) -> None:
        """Finish writing."""
        for tracker in self.trackers:
            tracker.finish()

    def _go_on_from(self, step: int) -> None:
        """Drop what was noted from `step` on: an interrupted run had come further than its checkpoint."""
        kept: list[list[str]] = []
        if self.path.exists():
            with self.path.open(newline="", encoding="utf-8") as file:
                kept = [row for row in csv.reader(file) if row[:1] and row[0].isdecimal() and int(row[0]) < step]
        write_atomically(self.path, csv_lines([HEADER, *kept]))
        self.trackers = _trackers(self.report_to, self.path.parent, step)
        for _ in range(step - 1):
            self.advance()
        self.begun = True


@contextmanager
def logged(folder: Path, steps: int, report_to: Sequence[str] | None = None) -> Iterator[LossLog]:
    """A log in `folder` of a distillation of so many steps, and in trackers; None is TensorBoard if it is installed."""
    with progress("distil", steps) as advance:
        log = LossLog(folder, advance, report_to)
        try:
            yield log
        finally:
            log.close()


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
