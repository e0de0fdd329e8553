"""Distil the pruned student from its teacher by the ICMD loss."""

from __future__ import annotations

from pathlib import Path

from vdmini_bench.distill.steps import distill_student
from vdmini_bench.suites.context import CommonBench
from vdmini_bench.system.sharing import Share, share_out


def run_stage(bench: CommonBench, subject: str, folder: Path) -> None:
    """Write the student's pipeline folder and the losses of every step; continues from its own checkpoint."""
    share_out(_distill_together, bench, folder)


def _distill_together(share: Share, bench: CommonBench, folder: Path) -> None:
    distill_student(bench.recipe, bench.folder("encode"), bench.folder("prune"), folder)
