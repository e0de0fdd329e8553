"""A run's context for tests of single stages: of a suite, with clips and jobs of the test's own."""

from __future__ import annotations

from pathlib import Path

from vdmini_bench.config.suite import Suite
from vdmini_bench.models.pruning import Pruning
from vdmini_bench.results.store import Store
from vdmini_bench.suites.clip_selection import ChosenClips
from vdmini_bench.suites.distributions import DistributionsContext
from vdmini_bench.suites.jobs import Job, TrainingInputs
from vdmini_bench.system.fingerprint import take_fingerprint


def context_of(
    suite: Suite, root: Path, clips: ChosenClips, *jobs: Job, teacher: str = "", pruning: Pruning | None = None
) -> DistributionsContext:
    pruned, named = pruning or Pruning("vdmini"), {job.name: job for job in jobs}
    inputs = TrainingInputs("digest", str(pruned), "", {})
    return DistributionsContext(
        Store(root), take_fingerprint(), teacher, pruned, inputs, named, suite, clips, run_id="run"
    )
