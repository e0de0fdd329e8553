"""FVMD (Liu et al. 2024, arXiv 2407.16124): how tracked points move, as the package fvmd has it.

Points on a grid are followed by PIPs++, which runs through that package on weights that the user imports.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vdmini_bench.assets.cache import asset_path
from vdmini_bench.assets.catalogue import ASSETS
from vdmini_bench.metrics.frechet import Moments, frechet_distance_of_moments

if TYPE_CHECKING:
    from torch import nn

FVMD_VERSION = "fvmd-1.0.0-pips2-1"
WEIGHTS = "fvmd-pips2"
FRAMES, SIZE, POINTS, ITERATIONS = 16, 256, 400, 16
# A histogram is of this many frames and points of the grid in each direction, by so many angles.
CELL_FRAMES, CELL_POINTS, ANGLES = 4, 5, 8
LARGEST = 256
# What the package adds to both covariances under the root.
OFFSET = 1e-5


def fvmd_distance(tracks: NDArray[Any], other: NDArray[Any]) -> float:
    """The Frechet distance between the `motion_histograms` of two sets of tracks, N S P 2 each, as the package has it.

    Raises:
        ValueError: fewer than 2 clips of a set, unlike sizes, or tracks that are not finite.
    """
    moments = [Moments.of(motion_histograms(each)) for each in (tracks, other)]
    size = moments[0].mean.size
    shifted = [replace(each, covariance=each.covariance + OFFSET * np.eye(size), spread=None) for each in moments]
    # The package leaves the offset out of the traces.
    return frechet_distance_of_moments(*shifted) - 2 * size * OFFSET


def motion_histograms(tracks: NDArray[Any]) -> NDArray[np.float64]:
    """Sum up tracks N S P 2, pixels of P points on a square grid over S frames: N x D, velocities then accelerations.

    What the package takes for the acceleration is the velocity once more, without that into the second frame: it is
    told tracks where it expects velocities, and published numbers have that.
    """
    velocity = np.zeros_like(tracks)
    velocity[:, 1:] = np.diff(tracks, axis=1)
    acceleration = velocity.copy()
    acceleration[:, 1] = 0
    return np.concatenate([_histograms(velocity), _histograms(acceleration)], axis=1)


def _histograms(vectors: NDArray[Any]) -> NDArray[np.float64]:
    """For each cell of frames and points how much goes which way: a logarithm of the length, rounded up."""
    count, frames, points, _ = vectors.shape
    side, times = round(points**0.5) // CELL_POINTS, frames // CELL_FRAMES
    width = side * CELL_POINTS
    grid = vectors.reshape(count, frames, round(points**0.5), -1, 2)[:, : times * CELL_FRAMES, :width, :width]
    angle = (np.arctan2(grid[..., 0], grid[..., 1]) + np.pi) // (2 * np.pi / ANGLES)
    length = np.linalg.norm(grid, axis=-1).clip(0, LARGEST - 1)
    weight = np.ceil(np.log2(length + 1)) / np.log2(LARGEST)
    by_angle = np.eye(ANGLES)[angle.clip(0, ANGLES - 1).astype(int)] * weight[..., None]
    cells = by_angle.reshape(count, times, CELL_FRAMES, side, CELL_POINTS, side, CELL_POINTS, ANGLES)
    return cells.sum(axis=(2, 4, 6), dtype=np.float64).reshape(count, -1)


def why_no_fvmd(frames: int) -> str | None:
    """Why clips of that many frames have no FVMD here, and what to do about it; None where they have."""
    import torch

    if frames < FRAMES:
        return f"clips of {frames} frames, and PIPs++ takes {FRAMES}"
    if find_spec("fvmd") is None:
        return "no package fvmd: pip install --no-deps fvmd, then what its import asks for"
    if asset_path(WEIGHTS) is None:
        return f"no {WEIGHTS}: {ASSETS[WEIGHTS].command}"
    return None if torch.cuda.is_available() else "no GPU: the package fvmd tracks on CUDA alone"


def load_pips() -> nn.Module:
    """PIPs++ of the package fvmd on the imported weights, on the GPU."""
    import torch
    from fvmd.nets.pips2 import Pips

    network: nn.Module = Pips(stride=8)
    network.load_state_dict(torch.load(str(asset_path(WEIGHTS)), weights_only=True)["model_state_dict"])
    return network.eval().cuda()


def clip_tracks(clips: Iterable[NDArray[np.uint8]], network: nn.Module) -> NDArray[np.float32]:
    """Follow a grid of 400 points through all 16 frames in a row of clips T H W C uint8 RGB, at 256x256: N 16 400 2."""
    import torch
    from fvmd.keypoint_tracking import run_tracking
    from torch.nn import functional

    found = []
    with torch.inference_mode():
        for clip in clips:
            frames = torch.from_numpy(np.ascontiguousarray(clip)).permute(0, 3, 1, 2).float()
            sized = functional.interpolate(frames, (SIZE, SIZE), mode="bilinear", antialias=True).round().clamp(0, 255)
            for window in sized.unfold(0, FRAMES, 1).movedim(-1, 1):
                found.append(run_tracking(network, window[None], N=POINTS, iters=ITERATIONS)[0].cpu().numpy())
    return np.stack(found)
