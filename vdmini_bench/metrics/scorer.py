"""Features of one set of clips to scores: FVD, KVD, motion and Inception Scores, each over blocks of equal size."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vdmini_bench.assets.cache import asset_path
from vdmini_bench.assets.catalogue import ASSETS
from vdmini_bench.config.protocol import ProtocolSpec
from vdmini_bench.data.clip_reader import ClipReader
from vdmini_bench.metrics.c3d import C3D, FRAMES
from vdmini_bench.metrics.features import ClipFeatures
from vdmini_bench.metrics.fid import FID_VERSION, frame_moments, load_inception_features, why_no_inception
from vdmini_bench.metrics.flow import FLOW_VERSION, flow_distance
from vdmini_bench.metrics.frechet import Moments, frechet_distance_of_moments
from vdmini_bench.metrics.fvd import FVD_VERSIONS
from vdmini_bench.metrics.inception import inception_score, inception_score_stylegan_v, inception_score_tgan_v2
from vdmini_bench.metrics.kernel import KVD_VERSIONS, polynomial_mmd
from vdmini_bench.metrics.reference import Reference
from vdmini_bench.results.score import Better, Score
from vdmini_bench.system.launch import process_device
from vdmini_bench.system.progress import progress

NO_FRAMES = (
    "the shipped reference holds no frames: give real videos (score --against DIR, or --set"
    " protocol.reference=computed)"
)
# Two published numbers of one name: neither their epsilon nor their splits agree.
INCEPTION_SCORES: dict[str, tuple[str, Callable[[np.ndarray[tuple[int, ...], np.dtype[np.float32]]], float]]] = {
    "inception_score_tgan_v2": ("c3d-ucf101-splits1-eps1e-20-2", inception_score_tgan_v2),
    "inception_score_stylegan_v": (
        "c3d-ucf101-splits10-shuffled-2",
        lambda rows: inception_score_stylegan_v(rows, min(10, len(rows)))[0],
    ),
}


@dataclass(frozen=True)
class Scorer:
    """Scores the clips of one model, in order, under a protocol; `identity` is what comparable scores share."""

    protocol: ProtocolSpec
    model: str
    identity: str

    def of(self, features: ClipFeatures, reference: Reference) -> list[Score]:
        """All scores that follow from a model's features."""

        def fvd(block: slice) -> float:
            moments = Moments.of(features.embeddings[block], self.protocol.ddof)
            return frechet_distance_of_moments(moments, reference.moments)

        # What the covariance is divided by moves the number, by about 1 / N of its traces.
        version = FVD_VERSIONS[self.protocol.network]
        scores = [self.blocks("fvd", version if self.protocol.ddof else f"{version}-n", "", "lower", fvd)]
        if features.flows is not None and reference.flows is not None:
            flows, real_flows = features.flows, reference.flows

            def flow(block: slice) -> float:
                return flow_distance(flows[block].reshape(-1, 2), real_flows)

            scores.append(self.blocks("flow_distance", FLOW_VERSION, "px/frame", "lower", flow))
        if reference.embeddings is not None:
            real = reference.embeddings

            def kvd(block: slice) -> float:
                return polynomial_mmd(features.embeddings[block], real)

            scores.append(self.blocks("kvd", KVD_VERSIONS[self.protocol.network], "", "lower", kvd))
        return scores + self._inception_scores(features)

    def _inception_scores(self, features: ClipFeatures) -> list[Score]:
        if self.protocol.inception == "i3d-kinetics400":
            # UCF101's Inception Score has its own network; on I3D it is another number, with a name of its own.
            version = "i3d-kinetics400-splits1-1"

            def score(block: slice) -> float:
                return inception_score(features.embeddings[block], splits=1)[0]

            return [self.blocks("inception_score_i3d", version, "", "higher", score)]
        rows = features.probabilities
        return [
            self.unavailable(metric, version, "higher")
            if rows is None
            else self.blocks(metric, version, "", "higher", lambda block, of=formula: of(rows[block]))  # type: ignore[misc]
            for metric, (version, formula) in INCEPTION_SCORES.items()
        ]

    def unavailable(self, metric: str, version: str, better: Better) -> Score:
        """The score of a metric that cannot be had here."""
        return Score.unavailable(self.model, metric, version, self.identity, better, self.protocol.clips)

    def failed(self, metric: str, version: str, unit: str, better: Better) -> Score:
        """The score of a metric that gave no number."""
        n = self.protocol.clips
        return Score(self.model, metric, version, self.identity, None, unit, better, None, 0, n, "failed")

    def blocks(self, metric: str, version: str, unit: str, better: Better, of_block: Callable[[slice], float]) -> Score:
        """The mean of a metric over blocks of equal size, with its standard error where there are several."""
        size, count, n = self.protocol.clips_per_block, self.protocol.blocks, self.protocol.clips
        values = tuple(of_block(slice(start * size, (start + 1) * size)) for start in range(count))
        if not all(map(math.isfinite, values)):
            # As StyleGAN-V's score where a probability is 0.
            return self.failed(metric, version, unit, better)
        error = statistics.stdev(values) / math.sqrt(count) if count > 1 else None
        mean = statistics.fmean(values)
        return Score(self.model, metric, version, self.identity, mean, unit, better, error, n, n, "ok", values)


def why_no_c3d(protocol: ProtocolSpec) -> str | None:
    """Why the Inception Scores of UCF101's own classifier cannot be had, or None when they can or are not asked for."""
    if protocol.inception != "c3d-ucf101":
        return None
    if protocol.frames != FRAMES:
        return f"clips of {protocol.frames} frames, and C3D takes {FRAMES}"
    return None if asset_path(C3D) is not None else f"no C3D network: {ASSETS[C3D].command}"


def unavailable_metrics(protocol: ProtocolSpec, *, frame_fid: bool) -> dict[str, str]:
    """The metrics asked for that cannot be had here, each with the reason."""
    reasons = {
        "fid": why_no_fid(protocol) if frame_fid else None,
        **dict.fromkeys(INCEPTION_SCORES, why_no_c3d(protocol)),
    }
    return {metric: reason for metric, reason in reasons.items() if reason is not None}


def why_no_fid(protocol: ProtocolSpec) -> str | None:
    """Why frame FID cannot be had under a protocol, or None when it can."""
    if protocol.reference == "shipped":
        return NO_FRAMES
    return why_no_inception()


def real_frames(real: ClipReader) -> Moments:
    """The moments of all frames of the reference clips: the real side of frame FID, as of FVD, whoever asks.

    Raises:
        IncompleteError: clips could not be read.
        AssetError: the network is not here, or has changed since it was imported.
    """
    network = load_inception_features().to(process_device())
    with progress("frames of reference clips", len(real)) as advance:
        real.on_clip = advance
        moments = frame_moments(map(_frames, real), network, "real")
        real.check()
    return moments


def score_frames(scorer: Scorer, real: Moments, generated: ClipReader) -> Score:
    """Frame FID of each block of generated clips from the real frames, each at a clip's own size.

    Raises:
        IncompleteError: clips could not be read.
        AssetError: the network is not here, or has changed since it was imported.
    """
    network = load_inception_features().to(process_device())
    with progress(f"frames of {scorer.model}", len(generated)) as advance:
        generated.on_clip = advance

        def distance(block: slice) -> float:
            part = replace(generated, paths=generated.paths[block], problems=[])
            moments = frame_moments(map(_frames, part), network, "generated")
            part.check()
            return frechet_distance_of_moments(moments, real)

        return scorer.blocks("fid", FID_VERSION, "", "lower", distance)


def _frames(clip: NDArray[np.uint8]) -> Tensor:
    """T H W C to T C H W."""
    return torch.from_numpy(clip).permute(0, 3, 1, 2)
