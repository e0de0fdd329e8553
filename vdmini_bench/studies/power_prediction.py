"""What a number of clips can see, predicted from measured effects: the loss that shows in 80 % of runs."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from vdmini_bench.results.stats import paired_power, skewed_power
from vdmini_bench.studies.power_clips import Loss
from vdmini_bench.system.files import write_atomically
from vdmini_bench.system.tables import csv_lines

# The effects that ship with the package, measured as docs/results/power.md says.
SHIPPED = Path(__file__).parent
OF_BLOCKS, OF_CLIPS = "power_blocks.csv", "power_clips.csv"
WANTED = 0.8
MOST_CLIPS = 100_000


@dataclass(frozen=True)
class Effect:
    """What losing a share of the clips does to one block: mean and standard deviation of the difference of two models.

    Both are in the metric's own unit; `size` is clips a block.
    """

    metric: str
    loss: Loss
    share: float
    size: int
    mean: float
    spread: float


@dataclass(frozen=True)
class ClipEffect:
    """The first four moments about 0 of a clip's difference of two models: both `whole`, or one without a `Loss`."""

    metric: str
    clips: str
    first: float
    second: float
    third: float
    fourth: float


@dataclass(frozen=True)
class Effects:
    """Measured effects on blocks and on clips, and what follows from them for other shares and sizes of blocks."""

    blocks: Sequence[Effect]
    clips: Sequence[ClipEffect]

    @classmethod
    def read(cls, folder: Path = SHIPPED) -> Effects:
        """What `write` wrote."""
        blocks, clips = (_lines(folder / name) for name in (OF_BLOCKS, OF_CLIPS))
        return cls(
            tuple(
                Effect(metric, "motion" if loss == "motion" else "content", float(share), int(size), *map(float, rest))
                for metric, loss, share, size, *rest in blocks
            ),
            tuple(ClipEffect(metric, what, *map(float, rest)) for metric, what, *rest in clips),
        )

    def write(self, folder: Path) -> None:
        """Write a row an effect, a file for blocks and one for clips."""
        for name, rows in ((OF_BLOCKS, self.blocks), (OF_CLIPS, self.clips)):
            cells = ([*vars(row).values()] for row in rows)
            lines = [[f"{cell:.6g}" if isinstance(cell, float) else cell for cell in line] for line in cells]
            write_atomically(folder / name, csv_lines([[*vars(rows[0])], *lines]))

    @cached_property
    def _curves(self) -> dict[tuple[str, Loss], dict[int, Callable[[float], np.ndarray[tuple[int], Any]]]]:
        """By metric and loss, by size: mean and spread as functions of the share."""
        from scipy.interpolate import PchipInterpolator

        found: dict[tuple[str, Loss], dict[int, list[tuple[float, float, float]]]] = {}
        for row in sorted(self.blocks, key=lambda row: (row.size, row.share)):
            curve = found.setdefault((row.metric, row.loss), {}).setdefault(row.size, [])
            curve.append((row.share, row.mean, row.spread))
        # Curved between shares: the spread is largest where half of the clips are lost.
        return {
            key: {
                size: PchipInterpolator([row[0] for row in curve], [row[1:] for row in curve])
                for size, curve in curves.items()
            }
            for key, curves in found.items()
        }

    def largest_block(self, metric: str) -> int:
        """The most clips a block that were measured: beyond, a block's spread is taken to fall as 1 / sqrt(clips)."""
        return max(row.size for row in self.blocks if row.metric == metric)

    def difference(self, metric: str, loss: Loss, share: float, size: int) -> tuple[float, float]:
        """Mean and standard deviation of a block's difference: between measured shares and sizes by interpolation."""
        curves = self._curves[metric, loss]
        sizes = np.array([*curves])
        means, spreads = np.array([curve(share) for curve in curves.values()]).T
        mean = float(np.interp(np.log(size), np.log(sizes), means))
        # What a block would spread by if its clips counted alone.
        of_one = float(np.interp(np.log(size), np.log(sizes), spreads * np.sqrt(sizes)))
        return mean, of_one / float(np.sqrt(size))

    def moments(self, metric: str, loss: Loss, share: float) -> tuple[float, float, float, float]:
        """Mean, standard deviation, skewness and excess kurtosis of a clip's difference where that share is lost."""
        whole, lost = (self._moments[metric, what] for what in ("whole", loss))
        first, second, third, fourth = (1 - share) * whole + share * lost
        spread = max(second - first**2, 0.0) ** 0.5
        if not spread:
            return first, 0.0, 0.0, 0.0
        skewness = (third - 3 * first * second + 2 * first**3) / spread**3
        kurtosis = (fourth - 4 * first * third + 6 * first**2 * second - 3 * first**4) / spread**4 - 3
        return float(first), float(spread), float(skewness), float(kurtosis)

    @cached_property
    def _moments(self) -> dict[tuple[str, str], np.ndarray[tuple[int], np.dtype[np.float64]]]:
        return {(row.metric, row.clips): np.array([row.first, row.second, row.third, row.fourth]) for row in self.clips}

    def sign(self, metric: str, loss: Loss, share: float, size: int) -> float:
        """Which way that loss moves the metric: 1, -1 or, where it does not, 0."""
        if (metric, "whole") in self._moments:
            return float(np.sign(self.moments(metric, loss, share)[0]))
        return float(np.sign(self.difference(metric, loss, share, size)[0]))

    def power(self, metric: str, loss: Loss, share: float, blocks: int, size: int) -> float:
        """In which share of runs of so many blocks that loss is seen."""
        if (metric, "whole") not in self._moments:
            return paired_power(*self.difference(metric, loss, share, size), blocks)
        mean, spread, skewness, kurtosis = self.moments(metric, loss, share)
        return skewed_power(mean, spread / size**0.5, skewness / size**0.5, kurtosis / size, blocks)

    def share_seen(self, metric: str, loss: Loss, blocks: int, size: int) -> float | None:
        """The smallest loss, in steps of 1 %, that is seen in 80 % of runs; None where no loss is."""
        shares = (step / 100 for step in range(1, 101))
        return next((each for each in shares if self.power(metric, loss, each, blocks, size) >= WANTED), None)

    def clips_needed(self, metric: str, loss: Loss, share: float, blocks: int | None, size: int = 1) -> int | None:
        """How many clips see that loss in 80 % of runs; None where 100,000 do not.

        They come in that many blocks, or with None in any number of blocks of `size` clips.
        """

        def enough(count: int) -> bool:
            return self.power(metric, loss, share, *((count, size) if blocks is None else (blocks, count))) >= WANTED

        unit = size if blocks is None else blocks
        low, high = 1, 2
        while not enough(high):
            low, high = high, 2 * high
            if high * unit > 2 * MOST_CLIPS:
                return None
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if enough(middle) else (middle, high)
        return high * unit if high * unit <= MOST_CLIPS else None


def _lines(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return [*csv.reader(file)][1:]
