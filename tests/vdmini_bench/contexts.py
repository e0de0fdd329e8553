"""A run's context for tests of single stages: of a suite, with clips and jobs of the test's own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from vdmini_bench.config.suite import Suite
from vdmini_bench.results.store import Store
from vdmini_bench.suites.clip_selection import ChosenClips
from vdmini_bench.suites.distributions import DistributionsContext
from vdmini_bench.suites.found_models import find_models
from vdmini_bench.suites.job_graph import Job
from vdmini_bench.suites.jobs import TrainingInputs, plan_training
from vdmini_bench.system.fingerprint import take_fingerprint


def context_of(suite: Suite, root: Path, clips: ChosenClips, *jobs: Job) -> DistributionsContext:
    """The context whose models are the suite's, and whose jobs are those that make them and the test's own."""
    found = find_models(suite.profile)
    inputs = TrainingInputs("digest", found.plans, found.sources, "", {})
    graph = plan_training(suite.profile, inputs, found.teacher)
    graph.jobs |= {job.name: job for job in jobs}
    graph.sampled |= {job.subject: job.name for job in jobs if job.stage == "sample"}
    context = DistributionsContext(
        Store(root), take_fingerprint(), found.teacher, found.prunings, inputs, graph, suite, clips
    )
    return replace(context, run_id="run")
