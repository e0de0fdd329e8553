"""Score one row of the table against the reference, by our metrics and those of other packages."""

from __future__ import annotations

from pathlib import Path

from vdmini_bench.metrics.features import Measured, clip_features
from vdmini_bench.metrics.fid import FID_VERSION
from vdmini_bench.metrics.frechet import Moments
from vdmini_bench.metrics.packaged import packaged_metrics
from vdmini_bench.metrics.plugged import Block, plugged_metrics, plugged_scores
from vdmini_bench.metrics.reference import FRAMES, load_reference
from vdmini_bench.metrics.scorer import INCEPTION_SCORES, Scorer, real_frames, score_frames, unavailable_metrics
from vdmini_bench.suites.context import write_scores
from vdmini_bench.suites.distributions import DistributionsContext
from vdmini_bench.suites.folder import FolderContext
from vdmini_bench.system.progress import say


def run_stage(context: DistributionsContext | FolderContext, subject: str, folder: Path) -> None:
    """Write the row's features and scores."""
    protocol, reader = context.protocol, context.reader(subject)
    missing = unavailable_metrics(protocol, frame_fid=context.frame_fid)
    for metric, reason in missing.items():
        say(f"{metric} is unavailable: {reason}")
    classes = protocol.inception == "c3d-ucf101" and not INCEPTION_SCORES.keys() & missing.keys()
    measured = Measured(protocol.network, protocol.network_resize, classes, context.flow)
    features = clip_features(reader, f"score {subject}", measured)
    features.save(folder)
    reference = load_reference(context.folder("reference"))
    scorer = Scorer(protocol, subject, context.identity(reference.moments.count))
    scores = scorer.of(features, reference)
    if "fid" in missing:
        scores.append(scorer.unavailable("fid", FID_VERSION, "lower"))
    elif context.frame_fid:
        kept = context.folder("reference") / FRAMES
        # Not there where the network was imported after the reference was scored.
        real = Moments.load(kept) if kept.is_file() else real_frames(context.real_reader())
        scores.append(score_frames(scorer, real, reader))
    real_clips = context.real_reader() if protocol.reference == "computed" else None
    others = (*plugged_metrics(), *packaged_metrics(protocol))
    theirs, problems = plugged_scores(scorer, Block(features, reference, reader, real_clips), others)
    write_scores(folder, context, [*scores, *theirs], missing | problems)
