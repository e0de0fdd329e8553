"""Prune the teacher by its plan, and its channels where there is a rule for them."""

from __future__ import annotations

from pathlib import Path

from vdmini_bench.distill.steps import prune_teacher
from vdmini_bench.suites.context import RunContext


def run_stage(context: RunContext, subject: str, folder: Path) -> None:
    """Write the pruned student's pipeline folder, which inherits the teacher's weights."""
    prune_teacher(context.recipe, folder)
