"""Score one row of the table against the reference: FVD, Inception Score, motion."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import save_file
from torch import Tensor

from vdmini_bench.clips import ClipReader
from vdmini_bench.features import ClipFeatures, clip_features
from vdmini_bench.jobs import GENERATED
from vdmini_bench.measurement import Better, Score
from vdmini_bench.metrics.fid import FID_VERSION, frame_fid, load_inception_features
from vdmini_bench.metrics.flow import FLOW_VERSION, flow_distance
from vdmini_bench.metrics.frechet import Moments, frechet_distance_of_moments
from vdmini_bench.metrics.fvd import FVD_VERSION
from vdmini_bench.metrics.inception import inception_score
from vdmini_bench.stages.reference import FLOWS, MOMENTS
from vdmini_bench.stages.sample import clip_path
from vdmini_bench.suite import ProtocolSpec
from vdmini_bench.workbench import Workbench, write_scores

FEATURES = "features.safetensors"


def run_stage(bench: Workbench, subject: str, folder: Path) -> None:
    """Write the row's features and scores."""
    features = clip_features(_reader(bench, subject), f"score {subject}")
    save_file({"logits": features.logits, "flows": features.flows}, folder / FEATURES)
    reference = bench.folder("reference")
    moments = Moments.load(reference / MOMENTS)
    flows = np.load(reference / FLOWS, allow_pickle=False)
    protocol = bench.suite.profile.protocol
    scores = score_features(protocol, subject, features, moments, flows)
    if protocol.frame_fid:
        scores.append(_frame_fid(bench, subject, moments.count))
    write_scores(folder, bench, scores)


def score_features(
    protocol: ProtocolSpec, model: str, features: ClipFeatures, reference: Moments, reference_flows: NDArray[np.float64]
) -> list[Score]:
    """All scores of a row that follow from its features."""

    def fvd(block: slice) -> float:
        return frechet_distance_of_moments(Moments.of(features.logits[block]), reference)

    def flow(block: slice) -> float:
        return flow_distance(features.flows[block].reshape(-1, 2), reference_flows)

    def inception(block: slice) -> float:
        return inception_score(features.logits[block], splits=1)[0]

    count = reference.count
    scores = [
        _block_score(protocol, model, "fvd", FVD_VERSION, "", "lower", count, fvd),
        _block_score(protocol, model, "flow_distance", FLOW_VERSION, "px/frame", "lower", count, flow),
    ]
    if protocol.inception == "i3d-kinetics400":
        # UCF101's Inception Score has its own network; on I3D it is another number, with a name of its own.
        version = "i3d-kinetics400-splits1-1"
        scores.append(_block_score(protocol, model, "inception_score_i3d", version, "", "higher", count, inception))
    else:
        n = protocol.clips_per_block * protocol.blocks
        name, version = "inception_score_c3d", "stylegan-v-splits10"
        scores.append(
            Score(model, name, version, _protocol_id(protocol, count), None, "", "higher", None, 0, n, "unavailable")
        )
    return scores


def _block_score(
    protocol: ProtocolSpec,
    model: str,
    metric: str,
    version: str,
    unit: str,
    better: Better,
    reference_count: int,
    of_block: Callable[[slice], float],
) -> Score:
    """The mean of a metric over seed blocks of equal size, with its standard error."""
    size, count = protocol.clips_per_block, protocol.blocks
    values = tuple(of_block(slice(start * size, (start + 1) * size)) for start in range(count))
    error = statistics.stdev(values) / math.sqrt(count)
    n = size * count
    identity = _protocol_id(protocol, reference_count)
    return Score(model, metric, version, identity, statistics.fmean(values), unit, better, error, n, n, "ok", values)


def _protocol_id(protocol: ProtocolSpec, reference_count: int) -> str:
    return f"{protocol.name}@{protocol.version}/n{protocol.clips_per_block}x{protocol.blocks}/ref{reference_count}"


def _frame_fid(bench: Workbench, subject: str, reference_count: int) -> Score:
    """FID of all frames of a block against those of the real clips whose first frames were the conditions."""
    protocol, network = bench.suite.profile.protocol, load_inception_features()
    paths = [video.path for video in bench.clips.condition]
    size = (protocol.resize_width, protocol.resize_height)
    reader = _reader(bench, subject)

    def fid(block: slice) -> float:
        real = ClipReader(paths[block], protocol.frames, protocol.frames_per_second, *size)
        generated = replace(reader, paths=reader.paths[block], problems=[])
        value = frame_fid(map(_frames, real), map(_frames, generated), network)
        real.check()
        generated.check()
        return value

    return _block_score(protocol, subject, "fid", FID_VERSION, "", "lower", reference_count, fid)


def _frames(clip: NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(clip).permute(0, 3, 1, 2)


def _reader(bench: Workbench, subject: str) -> ClipReader:
    protocol = bench.suite.profile.protocol
    rate: int | None = protocol.frames_per_second
    if subject in GENERATED:
        # A generated clip is all there is: its frames are taken as they are.
        folder, rate = bench.folder(f"sample {subject}"), None
        paths = [clip_path(folder, f"{seed:05d}") for seed in range(len(bench.clips.condition))]
    else:
        paths = [video.path for video in (bench.clips.real if subject == "real" else bench.clips.condition)]
    freeze = subject == "static"
    return ClipReader(paths, protocol.frames, rate, protocol.resize_width, protocol.resize_height, freeze)
