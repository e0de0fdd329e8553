"""The scales of pictures: where values lie, and which are marked."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Scale:
    """Maps values `low` to `high` to places `start` to `end`, linearly or by their logarithms."""

    low: float
    high: float
    start: float
    end: float
    logarithmic: bool = False

    def __call__(self, value: float) -> float:
        """The place of a value."""
        low, high, value = map(self._along, (self.low, self.high, value))
        return self.start + (value - low) / (high - low) * (self.end - self.start)

    def _along(self, value: float) -> float:
        return math.log10(value) if self.logarithmic else value

    def ticks(self, most: int = 6) -> list[float]:
        """Round values to mark, few enough to read."""
        if self.logarithmic:
            lowest, highest = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
            powers = range(lowest, highest + 1, max(1, math.ceil((highest - lowest) / most)))
            marks = [10.0**power for power in powers]
            inside = [mark for mark in marks if self.low <= mark <= self.high]
            return inside or [self.low, self.high]
        step = _round_step((self.high - self.low) / most)
        first = math.ceil(self.low / step - 1e-9)
        return [index * step for index in range(first, math.floor(self.high / step + 1e-9) + 1)]


def spanning(values: Sequence[float], start: float, end: float, *, zero: bool = False) -> Scale:
    """A linear scale with a margin round the values; from zero where these are counted from it."""
    low, high = min(values), max(values)
    if zero:
        low, high = min(low, 0.0), max(high, 0.0)
    margin = (high - low) * 0.08 or abs(high) * 0.1 or 1.0
    below = 0.0 if zero and low == 0.0 else margin
    above = 0.0 if zero and high == 0.0 and low < 0.0 else margin
    return Scale(low - below, high + above, start, end)


def spanning_logarithms(values: Sequence[float], start: float, end: float) -> Scale:
    """A logarithmic scale with a margin round positive values."""
    low, high = min(values), max(values)
    return Scale(low / 1.3, high * 1.3, start, end, logarithmic=True)


def short(value: float) -> str:
    """A number for a label: four significant digits."""
    return f"{value:.4g}"


def _round_step(rough: float) -> float:
    power = 10.0 ** math.floor(math.log10(rough))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9))
