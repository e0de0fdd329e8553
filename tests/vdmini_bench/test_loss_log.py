"""Losses as they come: what is written, and what a resumed run writes over."""

from __future__ import annotations

import csv
import importlib.util
import itertools
from pathlib import Path
from types import SimpleNamespace

import pytest
from accelerate import tracking
from pydantic import ValidationError
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.summary.writer import event_file_writer

from vdmini.distill import StepLosses
from vdmini_bench.config.models import DistillSpec
from vdmini_bench.distill.loss_log import HEADER, LOSSES, logged, write_losses


def losses(step: int, task: float = 0.5) -> StepLosses:
    return StepLosses(step, task, icd=1.0, mca=2.0, output=0.0, discriminator=2.0, gradient_norm=3.0)


def rows(folder: Path) -> list[tuple[int, float]]:
    with (folder / LOSSES).open(newline="") as file:
        return [(int(row["step"]), float(row["task"])) for row in csv.DictReader(file)]


def curve(folder: Path) -> list[tuple[int, float]]:
    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    return [(event.step, round(event.value, 6)) for event in events.Scalars("task")]


def test_each_step_is_there_as_soon_as_it_is_noted(tmp_path: Path) -> None:
    with logged(tmp_path, 3) as note:
        assert not (tmp_path / LOSSES).exists()
        for step in (1, 2):
            note(losses(step, step / 4))
            assert rows(tmp_path)[-1] == (step, step / 4)
    assert (tmp_path / LOSSES).read_text().splitlines()[0].split(",") == HEADER
    assert HEADER[0] == "step"
    assert curve(tmp_path) == [(1, 0.25), (2, 0.5)]


def test_a_resumed_run_drops_the_steps_after_its_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # TensorBoard reads the files of a folder in the order of the seconds they were begun in: here one each.
    seconds = itertools.count(1_800_000_000)
    monkeypatch.setattr(event_file_writer, "time", SimpleNamespace(time=lambda: float(next(seconds))))
    with logged(tmp_path, 6) as note:
        for step in range(1, 6):
            note(losses(step, 0.25))
    with (tmp_path / LOSSES).open("a") as file:
        file.write("6,0.2")  # killed while it wrote
    with logged(tmp_path, 6) as note:
        for step in range(4, 7):
            note(losses(step, 0.75))
    expected = [(step, 0.25 if step < 4 else 0.75) for step in range(1, 7)]
    assert rows(tmp_path) == expected
    assert curve(tmp_path) == expected


def test_a_file_that_is_no_log_is_written_anew(tmp_path: Path) -> None:
    (tmp_path / LOSSES).write_text("nothing\n\n,,\n-1,2\n")
    with logged(tmp_path, 2) as note:
        note(losses(2))
    assert rows(tmp_path) == [(2, 0.5)]


def test_the_whole_history_replaces_the_log(tmp_path: Path) -> None:
    with logged(tmp_path, 2) as note:
        note(losses(1, 9.0))
    write_losses(tmp_path, [losses(1, 0.125), losses(2, 0.25)])
    assert rows(tmp_path) == [(1, 0.125), (2, 0.25)]


def test_without_tensorboard_the_file_is_written_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with logged(tmp_path, 1) as note:
        note(losses(1))
    assert rows(tmp_path) == [(1, 0.5)]
    assert not (tmp_path / "tensorboard").exists()


def test_any_tracker_of_accelerate_gets_every_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[object] = []

    class Tracker:
        def __init__(self, project: str) -> None:
            seen.append(project)

        def start(self) -> None:
            seen.append("start")

        def log(self, values: dict[str, float], step: int) -> None:
            seen.append((step, values["task"]))

        def finish(self) -> None:
            seen.append("finish")

    monkeypatch.setitem(tracking.LOGGER_TYPE_TO_CLASS, "wandb", Tracker)
    with logged(tmp_path, 2, ["wandb"]) as note:
        note(losses(1))
        note(losses(2, 0.25))
    assert seen == ["vdmini", "start", (1, 0.5), (2, 0.25), "finish"]
    assert not (tmp_path / "tensorboard").exists()


def test_a_tracker_that_is_not_installed_is_refused_before_any_work() -> None:
    asked = {"steps": 1, "batch_size": 1, "learning_rate": 1e-4, "report_to": ["tensorboard", "trackio"]}
    with pytest.raises(ValidationError, match="trackio is not installed: pip install trackio"):
        DistillSpec.model_validate(asked)
