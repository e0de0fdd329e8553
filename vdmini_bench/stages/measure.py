"""Score one row of the table against the reference: FVD, Inception Score, motion."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import save_file

from vdmini_bench.clips import ClipReader
from vdmini_bench.features import ClipFeatures, clip_features
from vdmini_bench.jobs import GENERATED
from vdmini_bench.measurement import Better, Score
from vdmini_bench.metrics.flow import FLOW_VERSION, flow_distance
from vdmini_bench.metrics.frechet import Moments, frechet_distance_of_moments
from vdmini_bench.metrics.fvd import FVD_VERSION
from vdmini_bench.metrics.inception import inception_score
from vdmini_bench.stages.reference import FLOWS, MOMENTS
from vdmini_bench.stages.sample import clip_path
from vdmini_bench.workbench import Workbench, write_scores

FEATURES = "features.safetensors"


def run_stage(bench: Workbench, subject: str, folder: Path) -> None:
    """Write the row's features and scores."""
    features = clip_features(_reader(bench, subject), f"score {subject}")
    save_file({"logits": features.logits, "flows": features.flows}, folder / FEATURES)
    reference = bench.folder("reference")
    moments = Moments.load(reference / MOMENTS)
    flows = np.load(reference / FLOWS, allow_pickle=False)
    write_scores(folder, bench, score_features(bench, subject, features, moments, flows))


def score_features(
    bench: Workbench, model: str, features: ClipFeatures, reference: Moments, reference_flows: NDArray[np.float64]
) -> list[Score]:
    """All distribution scores of a row, each the mean over seed blocks of equal size with its standard error."""
    protocol = bench.suite.profile.protocol
    size, count = protocol.clips_per_block, protocol.blocks
    blocks = [slice(start * size, (start + 1) * size) for start in range(count)]
    protocol_id = f"{protocol.name}@{protocol.version}/n{size}x{count}/ref{reference.count}"

    def score(metric: str, version: str, unit: str, better: Better, of_block: Callable[[slice], float]) -> Score:
        values = tuple(of_block(block) for block in blocks)
        error = statistics.stdev(values) / len(values) ** 0.5
        return Score(
            model, metric, version, protocol_id, statistics.fmean(values), unit, better, error,
            len(features.logits), size * count, "ok", values,
        )  # fmt: skip

    def fvd(block: slice) -> float:
        return frechet_distance_of_moments(Moments.of(features.logits[block]), reference)

    def flow(block: slice) -> float:
        return flow_distance(features.flows[block].reshape(-1, 2), reference_flows)

    return [
        score("fvd", FVD_VERSION, "", "lower", fvd),
        score("flow_distance", FLOW_VERSION, "px/frame", "lower", flow),
        *_inception_scores(score, protocol.inception, features),
    ]


def _inception_scores(
    score: Callable[[str, str, str, Better, Callable[[slice], float]], Score], network: str, features: ClipFeatures
) -> list[Score]:
    """The Inception Score of the logits at hand: on I3D Kinetics-400 it is a stand-in with its own name."""
    if network != "i3d-kinetics400":
        return []
    logits = torch.from_numpy(features.logits)
    return [
        score(
            "inception_score_i3d", "i3d-kinetics400-splits1-1", "", "higher",
            lambda block: inception_score(logits[block], splits=1)[0],
        )
    ]  # fmt: skip


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
