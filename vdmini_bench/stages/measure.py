"""Score one row of the table against the reference: FVD, KVD, Inception Score, motion."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vdmini_bench.clips import ClipReader, clip_reader
from vdmini_bench.features import clip_features
from vdmini_bench.jobs import GENERATED
from vdmini_bench.measurement import Score
from vdmini_bench.metrics.fid import FID_VERSION, frame_fid, load_inception_features
from vdmini_bench.progress import say
from vdmini_bench.scores import Scorer, why_no_c3d
from vdmini_bench.stages.reference import load_reference
from vdmini_bench.suite import ProtocolSpec
from vdmini_bench.workbench import Workbench, write_scores


def run_stage(bench: Workbench, subject: str, folder: Path) -> None:
    """Write the row's features and scores."""
    protocol = bench.suite.profile.protocol
    features = clip_features(
        _reader(bench, subject),
        f"score {subject}",
        protocol.network_resize,
        classify=sees_c3d(protocol),
        packaged=protocol.reference == "shipped",
    )
    features.save(folder)
    reference = load_reference(bench.folder("reference"))
    scorer = Scorer(protocol, subject, protocol.identity(f"ref{reference.moments.count}"))
    scores = scorer.of(features, reference)
    if protocol.frame_fid:
        scores.append(_frame_fid(bench, subject, scorer))
    write_scores(folder, bench, scores)


def sees_c3d(protocol: ProtocolSpec) -> bool:
    """Whether clips go through the network of UCF101's Inception Scores; says why not where one is asked for."""
    reason = why_no_c3d(protocol)
    if reason is not None:
        say(f"Inception Score on UCF101 is unavailable: {reason}")
        return False
    return protocol.inception == "c3d-ucf101"


def _frame_fid(bench: Workbench, subject: str, scorer: Scorer) -> Score:
    """FID of all frames of a block against those of the real clips whose first frames were the conditions."""
    protocol, network = bench.suite.profile.protocol, load_inception_features()
    paths = [video.path for video in bench.clips.condition]
    reader = _reader(bench, subject)

    def fid(block: slice) -> float:
        real = clip_reader(protocol, paths[block], workers=bench.workers)
        generated = replace(reader, paths=reader.paths[block], problems=[])
        value = frame_fid(map(_frames, real), map(_frames, generated), network)
        real.check()
        generated.check()
        return value

    return scorer.blocks("fid", FID_VERSION, "", "lower", fid)


def _frames(clip: NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(clip).permute(0, 3, 1, 2)


def _reader(bench: Workbench, subject: str) -> ClipReader:
    protocol = bench.suite.profile.protocol
    if subject in GENERATED:
        # A generated clip is all there is: its frames are taken as they are.
        paths = [bench.clip_path(subject, name) for name in bench.clip_names]
        return clip_reader(protocol, paths, generated=True, workers=bench.workers)
    videos = bench.clips.real if subject == "real" else bench.clips.condition
    return clip_reader(protocol, [video.path for video in videos], freeze=subject == "static", workers=bench.workers)
