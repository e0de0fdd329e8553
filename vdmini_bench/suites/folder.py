"""Videos made elsewhere as what is scored: a folder of them, its checks, and its real side."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from vdmini_bench.assets.cache import fetch_asset
from vdmini_bench.config.protocol import ProtocolSpec
from vdmini_bench.config.suite import Suite
from vdmini_bench.data.clip_reader import ClipReader
from vdmini_bench.data.ucf101 import VideoFile, choose_balanced, read_split
from vdmini_bench.data.video import READING_VERSION, read_timeline, video_facts
from vdmini_bench.data.video_folder import VideoFolder, check_apart, copies_of, count_copies, list_videos, rate_of
from vdmini_bench.errors import MissingAssetsError, SuiteError, UnreadableVideoError, few
from vdmini_bench.metrics.flow import SMALLEST_SIDE
from vdmini_bench.metrics.reference import shipped_digest
from vdmini_bench.metrics.scorer import unavailable_metrics
from vdmini_bench.results.store import Store
from vdmini_bench.results.versions import deciding_versions
from vdmini_bench.suites.clip_selection import choose_reference, clip_reader
from vdmini_bench.suites.context import ScoringContext
from vdmini_bench.suites.datasets import dataset_root, digest_videos, draw_dataset, order_and_content
from vdmini_bench.suites.distributions import networks_digest
from vdmini_bench.suites.jobs import TrainingInputs, plan_scoring
from vdmini_bench.suites.missing import missing_networks, missing_table
from vdmini_bench.system.files import check_writable
from vdmini_bench.system.fingerprint import take_fingerprint
from vdmini_bench.system.progress import say

Rates = Literal["check", "resample", "ignore"]


@dataclass(frozen=True)
class ScoreRequest:
    """A folder to score: against the suite's own reference, or against a second folder of real videos."""

    suite: Suite
    videos: Path
    against: Path | None
    rates: Rates = "check"
    name: str | None = None
    flow: bool = True

    @property
    def model(self) -> str:
        """What the rows call these videos."""
        return self.name or self.videos.resolve().name

    @property
    def protocol(self) -> ProtocolSpec:
        """The protocol they are scored under; a second folder is always read, never shipped."""
        protocol = self.suite.profile.protocol
        return protocol if self.against is None else protocol.model_copy(update={"reference": "computed"})


@dataclass(frozen=True)
class FolderContext(ScoringContext):
    """The surroundings of scoring a folder: `chosen` videos of it, and the `real` side, none where that is shipped.

    `reference_name` is what the protocol's identity calls the real side where it is no suite's.
    """

    suite: Suite
    request: ScoreRequest
    chosen: tuple[VideoFile, ...]
    real: tuple[VideoFile, ...]
    reference_name: str
    found: tuple[str, ...]

    # Frame FID is scored wherever it can be.
    frame_fid = True

    def warnings(self) -> list[str]:
        """What was passed over, and what flatters the videos."""
        return [*self.found]

    @property
    def protocol(self) -> ProtocolSpec:
        """The request's."""
        return self.request.protocol

    @property
    def flow(self) -> bool:
        """Whether motion is measured."""
        return self.request.flow

    def identity(self, count: int) -> str:
        """What comparable scores share, `count` the clips of the reference."""
        # Frames that were taken one by one whatever their rate are another motion than the protocol means.
        ignored = self.request.rates == "ignore" and self.protocol.resample
        return self.protocol.identity(self.reference_name or f"ref{count}") + ("/rates-ignored" if ignored else "")

    def reader(self, row: str) -> ClipReader:
        """Reads the chosen videos."""
        paths = [video.path for video in self.chosen]
        reader = clip_reader(self.protocol, paths, generated=True, workers=self.workers, trusted=False)
        if self.request.rates == "resample":
            reader.frames_per_second = self.protocol.rate
        return reader

    def real_reader(self) -> ClipReader:
        """Reads the real side."""
        return clip_reader(self.protocol, [video.path for video in self.real], workers=self.workers, trusted=False)


def open_folder(request: ScoreRequest, results: Path, workers: int) -> FolderContext:
    """Check and choose the videos of both sides, fetch the network, and find the two jobs that score them.

    Raises:
        SuiteError: the folders or their videos cannot mean what was asked for.
        MissingAssetsError: the protocol's network or the real side has to be imported.
        BenchError: the results folder cannot be written, or a download failed.
    """
    protocol, store, fingerprint = request.protocol, Store(results), take_fingerprint()
    chosen, warnings = _chosen_videos(request)
    missing_weights = missing_networks(protocol)
    if missing_weights:
        raise MissingAssetsError(missing_table(request.suite, missing_weights))
    check_writable(results)
    fetch_asset(protocol.network)
    real, reference, reference_name = _reference(request, store)
    shared = copies_of([video.path for video in chosen], [video.path for video in real])
    if shared:
        warnings.append(
            f"{len(shared)} of {len(chosen)} videos are on the real side too, byte by byte, which lowers distances:"
            f" {few([path.name for path in shared])}"
        )
    for warning in warnings:
        say(f"warning: {warning}")
    # What could not be had is looked for again once it is there.
    missing = ",".join(unavailable_metrics(protocol, frame_fid=FolderContext.frame_fid))
    clips = f"folder {request.rates} {_digest(chosen, store, request.videos)} without {missing}"
    if not request.flow:
        clips, reference = f"{clips} flow", f"{reference} without flow"
    inputs = TrainingInputs("", {}, {}, "", deciding_versions(fingerprint.versions))
    graph = plan_scoring(protocol, request.model, clips, reference, networks_digest(protocol), inputs.versions)
    return FolderContext(
        store, fingerprint, "", {}, inputs, graph, request.suite, request, chosen, real, reference_name,
        tuple(warnings), workers=workers,
    )  # fmt: skip


def _chosen_videos(request: ScoreRequest) -> tuple[tuple[VideoFile, ...], list[str]]:
    protocol = request.protocol
    if request.against is not None and request.against.resolve() == request.videos.resolve():
        raise SuiteError(f"{request.videos} would be scored against itself: give --against another folder")
    if request.against is not None:
        check_apart(request.videos, request.against)
    folder = list_videos(request.videos)
    chosen = choose_videos(folder, protocol)
    check_videos(chosen, protocol, request.rates)
    warnings = []
    left = len(folder.videos) - len(chosen)
    if left:
        warnings.append(f"{left} of {len(folder.videos)} videos are not scored: the protocol has {len(chosen)}")
    if folder.others:
        warnings.append(f"{folder.others} files are not videos by their suffix, or hidden, and were passed over")
    copies = count_copies(chosen)
    if copies:
        warnings.append(f"{copies} of {len(chosen)} videos are copies of others, byte by byte")
    return chosen, warnings


def _reference(request: ScoreRequest, store: Store) -> tuple[tuple[VideoFile, ...], str, str]:
    """The real videos (none where they are shipped), their digest, and what the protocol's identity calls them."""
    protocol, dataset = request.protocol, request.suite.profile.dataset
    if request.against is not None:
        videos = list_videos(request.against).videos
        if len(videos) < 2:
            raise SuiteError(f"{request.against} holds one video: a covariance needs two or more to be scored against")
        digest = _digest(videos, store, request.against)
        return videos, f"folder {digest}", f"against{len(videos)}-{digest[:8]}"
    if protocol.reference == "shipped":
        return (), shipped_digest(), ""
    root = dataset_root(dataset, store)
    if root is None:
        raise MissingAssetsError(
            "the real side is UCF101, which is not here; next: vdmini-bench assets import ucf101 PATH, or --against DIR"
        )
    draw_dataset(dataset, store)
    videos = choose_reference(read_split(root, dataset.split), request.suite.profile)
    return videos, digest_videos(videos, store, root, "reference"), ""


def _digest(videos: Sequence[VideoFile], store: Store, root: Path) -> str:
    found = order_and_content(videos, store, root)
    return hashlib.sha256(f"{READING_VERSION} {found}".encode()).hexdigest()


def choose_videos(folder: VideoFolder, protocol: ProtocolSpec) -> tuple[VideoFile, ...]:
    """As many as the protocol scores: the same share of each subfolder, since the first in order would be few classes.

    Raises:
        SuiteError: there are fewer.
    """
    count = len(folder.videos)
    if count < protocol.clips:
        raise SuiteError(
            f"{folder.root} holds {count} videos where the protocol {protocol.name} scores {protocol.clips}"
            f" ({protocol.blocks} blocks of {protocol.clips_per_block}): add videos, or change the numbers with"
            " --set protocol.clips_per_block=N --set protocol.blocks=N"
        )
    return tuple(choose_balanced(folder.videos, protocol.clips, seed=0))


def check_videos(videos: Sequence[VideoFile], protocol: ProtocolSpec, rates: Rates) -> None:
    """Refuse videos whose rate or size the protocol cannot mean; those that cannot be opened are left to the reading.

    Raises:
        SuiteError: naming a few of them and what to do.
    """
    facts, off = [], []
    wanted = protocol.rate if rates == "check" else None
    for video in videos:
        try:
            facts.append(video_facts(video.path))
            timeline = None if wanted is None else read_timeline(video.path)
        except UnreadableVideoError:
            continue
        if timeline is not None and wanted is not None and not timeline.has_rate(wanted):
            off.append(f"{video.relative} ({rate_of(timeline)})")
    if off:
        raise SuiteError(
            f"{len(off)} of {len(videos)} videos are not of {wanted:g} frames a second, as the protocol"
            f" {protocol.name} has them: {few(off)}. Give --rates resample to take frames at that rate, or --rates"
            " ignore to take them one by one"
        )
    if protocol.preprocessing != "resize" or protocol.resize_width is not None:
        return
    sizes = Counter((fact.width, fact.height) for fact in facts)
    if len(sizes) > 1:
        shown = few([f"{width}x{height} ({count})" for (width, height), count in sizes.most_common()])
        raise SuiteError(
            f"the videos have several sizes and the protocol {protocol.name} resizes none: {shown}. Make them equal,"
            " or give --set protocol.resize_width=W --set protocol.resize_height=H"
        )
    small = [f"{width}x{height}" for width, height in sizes if min(width, height) < SMALLEST_SIDE]
    if small:
        raise SuiteError(f"frames of {small[0]}: motion needs sides of {SMALLEST_SIDE} pixels or more")
