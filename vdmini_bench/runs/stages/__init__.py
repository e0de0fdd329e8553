"""One module a stage: each is a function of the workbench that leaves its output in the job's folder."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from vdmini_bench.suites.context import CommonBench

Stage = Callable[[CommonBench, str, Path], None]


def stage_named(name: str) -> Stage:
    """The function `run_stage(bench, subject, folder)` of a stage; imported late, since stages import torch."""
    stage: Stage = import_module(f"vdmini_bench.runs.stages.{name}").run_stage
    return stage
