"""One module a stage: each is a function of a run's context that leaves its output in the job's folder."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

# Each stage says which contexts it works with.
Stage = Callable[[Any, str, Path], None]


def stage_named(name: str) -> Stage:
    """The function `run_stage(context, subject, folder)` of a stage; imported late, since stages import torch."""
    stage: Stage = import_module(f"vdmini_bench.runs.stages.{name}").run_stage
    return stage
