"""What a run would do: its jobs, which of them are done, their time and disk, and what is missing; runs nothing."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click

from vdmini_bench.config.suite import Suite
from vdmini_bench.config.vbench import VBenchSuite
from vdmini_bench.results.store import Store
from vdmini_bench.runs.on_card import BYTES_PER_PIXEL, GIB, Stage, stage_lines, stages_on
from vdmini_bench.speed.cards import UTILISATION
from vdmini_bench.suites.context import SuiteContext
from vdmini_bench.suites.job_graph import Job
from vdmini_bench.suites.kind import kind_of
from vdmini_bench.suites.missing import Missing
from vdmini_bench.system.tables import print_table


@dataclass(frozen=True)
class Preview:
    """The jobs with whether each is cached, what is missing, what comes first, and the disk that results will take.

    `on_card` is what they take on the card that was named, if one was.
    """

    jobs: tuple[tuple[Job, bool], ...]
    missing: tuple[Missing, ...]
    first: tuple[str, ...]
    disk_bytes: int
    card: str | None = None
    on_card: tuple[Stage, ...] = ()

    @property
    def seconds(self) -> float:
        """Estimated time of what is not cached, on two CPU cores."""
        return sum(job.estimate for job, cached in self.jobs if not cached)

    def to_json(self) -> dict[str, Any]:
        """The object that `run --dry-run --json` prints."""
        jobs = [{"name": job.name, "cached": cached, "seconds": job.estimate} for job, cached in self.jobs]
        return {**asdict(self), "jobs": jobs, "seconds": self.seconds}


def preview_run(suite: Suite | VBenchSuite, results: Path, card: str | None = None) -> Preview:
    """Plan a run without drawing, fetching or writing anything.

    Raises:
        SuiteError: no card has the name given, or the sizes of the teacher are not known here.
    """
    store, kind = Store(results), kind_of(suite)
    context = kind.open(store, remember=False)
    assert isinstance(context, SuiteContext)
    profile = suite.profile
    sampled, clip = (
        len({*context.graph.sampled.values()}),
        profile.frames * profile.sample.height * profile.sample.width,
    )
    clips = sampled * context.clips_per_model * clip * BYTES_PER_PIXEL[context.suffix]
    on_card = () if card is None else tuple(stages_on(suite, store, card))
    return Preview(
        jobs=tuple((job, context.is_done(job.name)) for job in context.jobs.values()),
        missing=tuple(kind.missing()),
        first=tuple(kind.first(store)),
        # Without a card, a small model's: its weights are few.
        disk_bytes=sum(stage.disk_bytes for stage in on_card) or int(clips) + 200 * 2**20,
        card=card,
        on_card=on_card,
    )


def print_preview(preview: Preview) -> None:
    """Show a preview as a table."""
    lines = [[job.name, "cached" if cached else "to run", f"{job.estimate:.0f} s"] for job, cached in preview.jobs]
    for item in preview.missing:
        click.echo(f"missing {item.name}: {item.what}; next: {item.command}")
    for step in preview.first:
        click.echo(f"first: {step}")
    print_table("jobs", ["job", "state", "estimate"], lines)
    if preview.card is not None:
        print_table(f"on {preview.card}, predicted at {UTILISATION:.0%} of its peak", *stage_lines(preview.on_card))
    took = f"{preview.seconds / 60:.0f} min on two CPU cores"
    if preview.card is not None:
        took = f"{sum(stage.seconds for stage in preview.on_card) / 3600:.3g} hours on {preview.card}"
    click.echo(f"about {took}, {preview.disk_bytes / GIB:.3g} GiB of results")
