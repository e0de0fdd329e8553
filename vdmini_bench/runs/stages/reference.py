"""The real side of the distribution metrics: moments of features and flow magnitudes, shipped or computed once."""

from __future__ import annotations

from pathlib import Path

from vdmini_bench.metrics.features import Measured
from vdmini_bench.metrics.reference import FRAMES, copy_shipped, write_reference
from vdmini_bench.metrics.scorer import real_frames, why_no_fid
from vdmini_bench.suites.distributions import DistributionsContext
from vdmini_bench.suites.folder import FolderContext


def run_stage(context: DistributionsContext | FolderContext, subject: str, folder: Path) -> None:
    """Write `moments.npz` and `flows.npy`, copied or computed, and `frames.npz` where frame FID can be had."""
    protocol = context.protocol
    if protocol.reference == "shipped":
        copy_shipped(folder)
        return
    measured = Measured(protocol.network, protocol.network_resize, flows=context.flow)
    features = write_reference(folder, context.real_reader(), "score reference clips", measured, protocol.ddof)
    features.save(folder)
    if context.frame_fid and why_no_fid(protocol) is None:
        real_frames(context.real_reader()).save(folder / FRAMES)
