"""Score a folder of videos made elsewhere under a suite's protocol: nothing is generated, no model is loaded."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from vdmini_bench.config.protocol import ProtocolSpec
from vdmini_bench.config.suite import Suite
from vdmini_bench.data.clip_reader import ClipReader
from vdmini_bench.data.ucf101 import VideoFile, choose_balanced, content_digest, read_split
from vdmini_bench.data.video import READING_VERSION, read_timeline, video_facts
from vdmini_bench.data.video_folder import VideoFolder, _rate_of, check_apart, copies_of, count_copies, list_videos
from vdmini_bench.errors import AssetError, BenchError, MissingAssetsError, SuiteError, UnreadableVideoError, few
from vdmini_bench.metrics.flow import SMALLEST_SIDE
from vdmini_bench.metrics.reference import shipped_digest
from vdmini_bench.results.leaderboard import add_rows
from vdmini_bench.results.score import RESULTS_FILE, SCORES, Row, Score, record_of, result_line, row_of
from vdmini_bench.results.store import Store
from vdmini_bench.results.versions import deciding_versions
from vdmini_bench.runs.execution import LOG, perform_job
from vdmini_bench.runs.rows import suite_cells
from vdmini_bench.suites.clip_selection import choose_reference, clip_reader
from vdmini_bench.suites.datasets import dataset_root, digest_videos, draw_dataset
from vdmini_bench.suites.distributions import fetch_networks
from vdmini_bench.suites.jobs import plan_scoring
from vdmini_bench.suites.missing import missing_networks, missing_table
from vdmini_bench.system.files import check_writable, write_atomically
from vdmini_bench.system.fingerprint import take_fingerprint
from vdmini_bench.system.progress import say

SCORED = "scored"
ROWS_FILE = "scores.csv"


@dataclass(frozen=True)
class FolderScores:
    """What scoring left: the folder with its records, its rows, and whether the scores were there already."""

    folder: Path
    rows: tuple[Row, ...]
    scores: tuple[Score, ...]
    cached: bool
    warnings: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """The object that `score --json` prints."""
        return {
            "folder": str(self.folder),
            "cached": self.cached,
            "rows": [row.to_json() for row in self.rows],
            "warnings": list(self.warnings),
        }


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


def score_folder(request: ScoreRequest, results: Path, workers: int = 1) -> FolderScores:
    """Score the videos, or read what an earlier call left for the same files, protocol and weights.

    Raises:
        SuiteError: the folders or their videos cannot mean what was asked for; nothing was scored.
        MissingAssetsError: the protocol's network or the real side has to be imported; nothing was scored.
        IncompleteError: some videos could not be read, each is named.
        BenchError: scoring failed.
    """
    protocol, store = request.protocol, Store(results)
    chosen, warnings = _chosen_videos(request)
    missing_weights = missing_networks(protocol)
    if missing_weights:
        raise MissingAssetsError(missing_table(request.suite, missing_weights))
    check_writable(results)
    try:
        networks = fetch_networks(protocol)
    except AssetError as error:
        raise BenchError(str(error)) from error
    real, reference_digest, reference_name = _reference(request, store, len(chosen))
    shared = copies_of([video.path for video in chosen], [video.path for video in real])
    if shared:
        warnings.append(
            f"{len(shared)} of {len(chosen)} videos are on the real side too, byte by byte, which lowers distances:"
            f" {few([path.name for path in shared])}"
        )
        say(f"warning: {warnings[-1]}")
    # What could not be had is looked for again once it is there.
    missing = _unavailable(protocol)
    digest = f"folder {request.rates} {_digest(chosen, store, request.videos)} without {','.join(missing)}"
    if not request.flow:
        digest, reference_digest = f"{digest} flow", f"{reference_digest} without flow"
    fingerprint = take_fingerprint()
    versions = deciding_versions(fingerprint.versions)
    jobs = plan_scoring(protocol, request.model, digest, reference_digest, networks, versions)
    reference, measure = jobs
    reference_folder = store.work_folder(reference.stage, reference.key)
    log = store.root / LOG
    if not store.is_done(reference.stage, reference.key):
        perform_job(store, reference, lambda folder: _write_reference(request, real, folder, workers), log)
    cached = store.is_done(measure.stage, measure.key)

    def measured(folder: Path) -> None:
        scores = _measure(request, chosen, real, reference_folder, reference_name, folder, workers)
        write_atomically(folder / SCORES, json.dumps(record_of(scores, fingerprint, missing), indent=1))

    if not cached:
        perform_job(store, measure, measured, log)
    record = json.loads((store.work_folder(measure.stage, measure.key) / SCORES).read_text(encoding="utf-8"))
    return _publish(request, store, record, measure.key, cached, warnings)


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
    for warning in warnings:
        say(f"warning: {warning}")
    return chosen, warnings


def _reference(request: ScoreRequest, store: Store, count: int) -> tuple[tuple[VideoFile, ...], str, str]:
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
    if dataset.kind == "drawn":
        draw_dataset(root, dataset)
    videos = choose_reference(read_split(root, dataset.split), request.suite.profile)
    return videos, digest_videos(videos, store, root, "reference"), ""


def _digest(videos: Sequence[VideoFile], store: Store, root: Path) -> str:
    place = hashlib.sha256(str(root.resolve()).encode(errors="surrogateescape")).hexdigest()[:8]
    order = hashlib.sha256("\n".join(video.relative for video in videos).encode(errors="surrogateescape")).hexdigest()
    content = content_digest(videos, store.root / "data" / f"index-{place}.json")
    return hashlib.sha256(f"{READING_VERSION} {order}{content}".encode()).hexdigest()


def _write_reference(request: ScoreRequest, real: Sequence[VideoFile], folder: Path, workers: int) -> None:
    from vdmini_bench.metrics.features import Measured
    from vdmini_bench.metrics.reference import copy_shipped, write_reference

    protocol = request.protocol
    if protocol.reference == "shipped":
        copy_shipped(folder)
        return
    reader = _real_reader(protocol, real, workers)
    label = "score real videos"
    measured = Measured(protocol.network, protocol.network_resize, flows=request.flow)
    features = write_reference(folder, reader, label, measured, protocol.ddof)
    features.save(folder)


def _real_reader(protocol: ProtocolSpec, real: Sequence[VideoFile], workers: int) -> ClipReader:
    return clip_reader(protocol, [video.path for video in real], workers=workers, trusted=False)


def _unavailable(protocol: ProtocolSpec) -> dict[str, str]:
    """The metrics that cannot be had here, each with the reason."""
    from vdmini_bench.metrics.scorer import INCEPTION_SCORES, why_no_c3d, why_no_fid

    reasons = {"fid": why_no_fid(protocol), **dict.fromkeys(INCEPTION_SCORES, why_no_c3d(protocol))}
    return {metric: reason for metric, reason in reasons.items() if reason is not None}


def _measure(
    request: ScoreRequest,
    chosen: Sequence[VideoFile],
    real: Sequence[VideoFile],
    reference_folder: Path,
    reference_name: str,
    folder: Path,
    workers: int,
) -> list[Score]:
    from vdmini_bench.metrics.features import Measured, clip_features
    from vdmini_bench.metrics.fid import FID_VERSION
    from vdmini_bench.metrics.reference import load_reference
    from vdmini_bench.metrics.scorer import Scorer, score_frames, why_no_fid
    from vdmini_bench.runs.stages.measure import sees_c3d

    protocol = request.protocol
    reader = clip_reader(protocol, [video.path for video in chosen], generated=True, workers=workers, trusted=False)
    if request.rates == "resample":
        reader.frames_per_second = protocol.rate
    measured = Measured(protocol.network, protocol.network_resize, sees_c3d(protocol), request.flow)
    features = clip_features(reader, f"score {request.model}", measured)
    features.save(folder)
    reference = load_reference(reference_folder)
    identity = protocol.identity(reference_name or f"ref{reference.moments.count}")
    # Frames that were taken one by one whatever their rate are another motion than the protocol means.
    identity += "/rates-ignored" if request.rates == "ignore" and protocol.resample else ""
    scorer = Scorer(protocol, request.model, identity)
    scores = scorer.of(features, reference)
    if why_no_fid(protocol) is not None:
        return [*scores, scorer.unavailable("fid", FID_VERSION, "lower")]
    return [*scores, score_frames(scorer, _real_reader(protocol, real, workers), reader)]


def _publish(
    request: ScoreRequest, store: Store, record: dict[str, Any], key: str, cached: bool, warnings: list[str]
) -> FolderScores:
    """Leave the scores where `compare --run` reads them, and their rows beside those of other folders."""
    scores = tuple(Score.from_json(score) for score in record["scores"])
    folder = store.root / SCORED / key
    rows = tuple(_row(request, score, record, key) for score in scores)
    write_atomically(folder / RESULTS_FILE, "".join(map(result_line, scores, rows)))
    add_rows(store.root / ROWS_FILE, rows)
    return FolderScores(folder, rows, scores, cached, tuple(warnings))


def _row(request: ScoreRequest, score: Score, record: dict[str, Any], key: str) -> Row:
    suite = request.suite
    origin = {
        **suite_cells(suite),
        "role": SCORED,
        "machine_id": record["machine_id"],
        "gpu": record["gpu"],
        "torch": record["torch"],
        "commit": record["commit"],
        "dirty": str(record["dirty"]).lower(),
        "date": record["date"],
        "run_id": key,
        "note": "; ".join(filter(None, (suite.profile.stand_in, record["notes"].get(score.metric)))),
    }
    return row_of(score, origin)


Rates = Literal["check", "resample", "ignore"]


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
            off.append(f"{video.relative} ({_rate_of(timeline)})")
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
