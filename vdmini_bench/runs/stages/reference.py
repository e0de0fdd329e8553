"""The real side of the distribution metrics: moments of features and flow magnitudes, shipped or computed once."""

from __future__ import annotations

from pathlib import Path

from vdmini_bench.data.clip_reader import ClipReader
from vdmini_bench.metrics.features import Measured
from vdmini_bench.metrics.reference import copy_shipped, write_reference
from vdmini_bench.suites.clip_selection import clip_reader
from vdmini_bench.suites.distributions import Workbench


def run_stage(bench: Workbench, subject: str, folder: Path) -> None:
    """Write `moments.npz` and `flows.npy`, copied from the package or computed from the reference clips."""
    protocol = bench.suite.profile.protocol
    if protocol.reference == "shipped":
        copy_shipped(folder)
        return
    label = "score reference clips"
    measured = Measured(protocol.network, protocol.network_resize)
    features = write_reference(folder, reference_reader(bench), label, measured, protocol.ddof)
    features.save(folder)


def reference_reader(bench: Workbench) -> ClipReader:
    """Reads the real side of every score, where it is not shipped."""
    paths = [video.path for video in bench.clips.reference]
    return clip_reader(bench.suite.profile.protocol, paths, workers=bench.workers)
