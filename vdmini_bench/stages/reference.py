"""The real side of the distribution metrics: I3D moments and flow magnitudes, shipped or computed once."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np

from vdmini_bench.clips import ClipReader
from vdmini_bench.features import clip_features
from vdmini_bench.metrics.frechet import Moments
from vdmini_bench.workbench import Workbench

MOMENTS = "moments.npz"
FLOWS = "flows.npy"
SHIPPED = Path(__file__).parents[1] / "embedded" / "reference"


def run_stage(bench: Workbench, subject: str, folder: Path) -> None:
    """Write `moments.npz` and `flows.npy`, copied from the package or computed from the reference clips."""
    protocol = bench.suite.profile.protocol
    if protocol.reference == "shipped":
        for name in (MOMENTS, FLOWS):
            shutil.copyfile(SHIPPED / name, folder / name)
        return
    paths = [video.path for video in bench.clips.reference]
    reader = ClipReader(
        paths, protocol.frames, protocol.frames_per_second, protocol.resize_width, protocol.resize_height
    )
    write_reference(folder, reader, "score reference clips")


def shipped_moments() -> Moments:
    """The moments of the drawn world's reference clips, which ship with the package."""
    return Moments.load(SHIPPED / MOMENTS)


def write_reference(folder: Path, reader: ClipReader, label: str) -> None:
    """Score every clip of `reader` and write their moments and flows."""
    features = clip_features(reader, label)
    Moments.of(features.logits).save(folder / MOMENTS)
    np.save(folder / FLOWS, features.flows.reshape(-1, 2), allow_pickle=False)
