"""The losses of a distillation as they come: in a CSV file, on the terminal, and in TensorBoard's logs."""

from __future__ import annotations

import csv
import importlib.util
from collections.abc import Iterable, Iterator
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
HEADER = [field.name for field in fields(StepLosses)]


class LossLog:
    """Takes the losses of each step in turn; the first may be a later step, where an interrupted run goes on."""

    def __init__(self, folder: Path, advance: Any) -> None:
        self.path, self.advance = folder / LOSSES, advance
        self.begun = False
        self.board: Any = None

    def add(self, losses: StepLosses) -> None:
        """Note one step."""
        if not self.begun:
            self._go_on_from(losses.step)
        with self.path.open("a", newline="", encoding="utf-8") as file:
            file.write(csv_lines([[losses.step, *losses.values()]]))
        named = {name: value for name, value in asdict(losses).items() if name != "step"}
        if self.board is not None:
            for name, value in named.items():
                self.board.add_scalar(name, value, losses.step)
        self.advance(", ".join(f"{name} {value:.3g}" for name, value in named.items()))

    def close(self) -> None:
        """Finish writing."""
        if self.board is not None:
            self.board.close()

    def _go_on_from(self, step: int) -> None:
        """Drop what was noted from `step` on: an interrupted run had come further than its checkpoint."""
        kept: list[list[str]] = []
        if self.path.exists():
            with self.path.open(newline="", encoding="utf-8") as file:
                kept = [row for row in csv.reader(file) if row[:1] and row[0].isdecimal() and int(row[0]) < step]
        write_atomically(self.path, csv_lines([HEADER, *kept]))
        self.board = _board(self.path.parent / BOARD, step)
        for _ in range(step - 1):
            self.advance()
        self.begun = True


@contextmanager
def logged(folder: Path, steps: int) -> Iterator[LossLog]:
    """A log in `folder` of a distillation of so many steps."""
    with progress("distil", steps) as advance:
        log = LossLog(folder, advance)
        try:
            yield log
        finally:
            log.close()


def write_losses(folder: Path, losses: Iterable[StepLosses]) -> None:
    """Write the losses of every step, whatever a log held of them."""
    lines = [[each.step, *each.values()] for each in losses]
    write_atomically(folder / LOSSES, csv_lines([HEADER, *lines]))


def _board(folder: Path, step: int) -> Any:
    """A writer of TensorBoard's logs that hides what was logged from `step` on; None where TensorBoard is missing."""
    if importlib.util.find_spec("tensorboard") is None:
        return None
    from torch.utils.tensorboard import SummaryWriter

    writer: Any = SummaryWriter
    return writer(str(folder), purge_step=step)
