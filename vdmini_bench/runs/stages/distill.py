"""Distil the pruned student from its teacher by the ICMD loss."""

from __future__ import annotations

from pathlib import Path

from vdmini_bench.distill.steps import distill_student
from vdmini_bench.suites.context import RunContext
from vdmini_bench.system.launch import Share, share_out


def run_stage(context: RunContext, subject: str, folder: Path) -> None:
    """Write the student's pipeline folder and the losses of every step; continues from its own checkpoint."""
    share_out(_distill, context, folder)


def _distill(share: Share, context: RunContext, folder: Path) -> None:
    distill_student(share, context.recipe, context.folder("encode"), context.folder("prune"), folder)
