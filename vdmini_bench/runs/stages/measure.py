"""Score one row of the table against the reference: FVD, KVD, Inception Score, motion, frame FID."""

from __future__ import annotations

from pathlib import Path

from vdmini_bench.config.protocol import ProtocolSpec
from vdmini_bench.data.clip_reader import ClipReader
from vdmini_bench.metrics.features import Measured, clip_features
from vdmini_bench.metrics.fid import FID_VERSION
from vdmini_bench.metrics.reference import load_reference
from vdmini_bench.metrics.scorer import NO_FRAMES, Scorer, score_frames, why_no_c3d
from vdmini_bench.runs.stages.reference import reference_reader
from vdmini_bench.suites.clip_selection import clip_reader
from vdmini_bench.suites.context import write_scores
from vdmini_bench.suites.distributions import Workbench
from vdmini_bench.suites.jobs import GENERATED
from vdmini_bench.system.progress import say


def run_stage(bench: Workbench, subject: str, folder: Path) -> None:
    """Write the row's features and scores."""
    protocol = bench.suite.profile.protocol
    reader = _reader(bench, subject)
    measured = Measured(protocol.network, protocol.network_resize, classes=sees_c3d(protocol))
    features = clip_features(reader, f"score {subject}", measured)
    features.save(folder)
    reference = load_reference(bench.folder("reference"))
    scorer = Scorer(protocol, subject, protocol.identity(f"ref{reference.moments.count}"))
    scores = scorer.of(features, reference)
    notes = {}
    if protocol.frame_fid and protocol.reference == "shipped":
        scores.append(scorer.unavailable("fid", FID_VERSION, "lower"))
        notes["fid"] = NO_FRAMES
    elif protocol.frame_fid:
        scores.append(score_frames(scorer, reference_reader(bench), reader))
    write_scores(folder, bench, scores, notes)


def sees_c3d(protocol: ProtocolSpec) -> bool:
    """Whether clips go through the network of UCF101's Inception Scores; says why not where one is asked for."""
    reason = why_no_c3d(protocol)
    if reason is not None:
        say(f"Inception Score on UCF101 is unavailable: {reason}")
        return False
    return protocol.inception == "c3d-ucf101"


def _reader(bench: Workbench, subject: str) -> ClipReader:
    protocol = bench.suite.profile.protocol
    if subject in GENERATED:
        # A generated clip is all there is: its frames are taken as they are.
        paths = [bench.clip_path(subject, name) for name in bench.clip_names]
        return clip_reader(protocol, paths, generated=True, workers=bench.workers)
    videos = bench.clips.real if subject == "real" else bench.clips.condition
    return clip_reader(protocol, [video.path for video in videos], freeze=subject == "static", workers=bench.workers)
