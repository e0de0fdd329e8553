"""Folders of small drawn videos and the command that scores them, with a small network in the place of I3D."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from click.testing import CliRunner, Result
from numpy.typing import NDArray
from torch import Tensor, nn

from vdmini_bench.cli import main
from vdmini_bench.data.synthetic import ACTIONS, draw_clip
from vdmini_bench.data.video import write_video

SUITE = Path(__file__).parents[2] / "suites" / "ucf101.yaml"
FEW = ("--set", "protocol.clips_per_block=3", "--set", "protocol.blocks=2")


class SmallI3d(nn.Module):
    """Averages over a grid of 4 x 5 x 20 places: 400 numbers that tell clips apart."""

    def forward(self, video: Tensor) -> Tensor:
        """B C T H W to B x 400."""
        return nn.functional.adaptive_avg_pool3d(video.mean(dim=1, keepdim=True), (4, 5, 20)).flatten(1)


def clip(number: int, size: int = 32, frames: int = 10) -> NDArray[np.uint8]:
    """A drawn clip T H W C uint8."""
    drawn = draw_clip(tuple(ACTIONS)[number % len(ACTIONS)], 1, number).frames[:frames]
    return np.repeat(np.repeat(drawn, size // 16, axis=1), size // 16, axis=2)[:, :size, :size]


def fill(folder: Path, count: int = 6, start: int = 0, rate: int = 7) -> Path:
    """The folder with that many drawn clips in it, by number."""
    for number in range(start, start + count):
        write_video(folder / f"{number:02d}.mkv", clip(number), rate)
    return folder


def score(folder: Path, *options: object) -> Result:
    """Score a folder by `vdmini-bench score`, in this process; the results lie beside the folder."""
    arguments = ["score", folder, "--suite", SUITE, "--profile", "smoke", "--results", folder.parent / "results"]
    return CliRunner().invoke(main, [str(each) for each in (*arguments, *FEW, *options)])
