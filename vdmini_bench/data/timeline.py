"""Which frames a video has at a rate, by the times at which its file says that they are shown."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from math import floor
from typing import TypeVar

# Rates that differ by less are equal: 23.976 and 24, 29.97 and 30.
RATE_TOLERANCE = Fraction(2, 1000)
# Many programs count milliseconds, whatever the clock of the file that they write.
COARSE_CLOCK = Fraction(1, 1000)
# As FFmpeg takes a decimal for a fraction.
LARGEST_DENOMINATOR = 1_001_000

Item = TypeVar("Item")
# When a frame is shown and when it no longer is, in seconds, and the frame.
Shown = tuple[Fraction, Fraction, Item]


@dataclass(frozen=True)
class Timeline:
    """When the frames of a file are shown, in ticks of its clock in order; the last one is shown until `end`.

    `tick` is in seconds. `named_rate` is what the head says of the rate, for where no two frames do. `by_place`: the
    file does not say beside each frame when that one is shown, so it is the time that has the frame's place here.
    """

    times: tuple[int, ...]
    end: int
    tick: Fraction
    named_rate: Fraction
    by_place: bool

    @property
    def frames_per_second(self) -> Fraction:
        """The mean rate."""
        _, span = self._ends
        return (len(self.times) - 1) / (span * self.tick) if span else self.named_rate

    @property
    def even(self) -> bool:
        """Whether the rate is constant, as far as a clock that rounds can tell."""
        gaps, first, span = len(self.times) - 1, *self._ends
        slack = gaps * self._slack
        return all(abs((time - first) * gaps - place * span) <= slack for place, time in enumerate(self.times))

    def has_rate(self, rate: float) -> bool:
        """Whether this is a constant rate equal to `rate`: frames are then taken one by one."""
        wanted, gaps = exact_rate(rate), len(self.times) - 1
        if gaps < 1:
            return abs(self.named_rate - wanted) <= RATE_TOLERANCE * wanted
        off = abs(self._ends[1] * self.tick - gaps / wanted)
        return self.even and off <= RATE_TOLERANCE * gaps / wanted + self._slack * self.tick

    @property
    def gaps(self) -> tuple[float, float]:
        """The least and the greatest time from one frame to the next, in seconds; needs two frames."""
        return float(min(self._gaps) * self.tick), float(max(self._gaps) * self.tick)

    def count(self, rate: float | None) -> int:
        """How many frames there are at a rate; one by one for None."""
        if rate is None or not self.times or self.has_rate(rate):
            return len(self.times)
        spans = [(time * self.tick, self.end * self.tick) for time in (self.times[0], self.times[-1])]
        return count_at_rate(spans, rate)

    @property
    def _ends(self) -> tuple[int, int]:
        """The first time, and how long after it the last one is."""
        return (self.times[0], self.times[-1] - self.times[0]) if self.times else (0, 0)

    @property
    def _gaps(self) -> set[int]:
        return {after - before for before, after in pairwise(self.times)}

    @property
    def _slack(self) -> Fraction:
        """How many ticks a time may be off where unlike gaps say that times are rounded: fewer than a frame lost."""
        if len(self._gaps) < 2:
            return Fraction(0)
        return min(max(Fraction(1), COARSE_CLOCK / self.tick), Fraction(self._ends[1], 3 * (len(self.times) - 1)))


def frames_at_rate(shown: Iterable[Shown[Item]], rate: float, start: int = 0) -> Iterator[Item]:
    """The frames at `rate` a second from the `start`-th on, exactly those that FFmpeg's filter `fps` gives by default.

    Times are rounded to the nearest multiple of 1 / rate. From the first frame's on, each multiple has the last frame
    that is not after it, until the last frame's end, rounded too.
    """
    wanted, slot, stop = exact_rate(rate), -1, 0
    current: list[Item] = []
    for begin, end, item in shown:
        place = _nearest(begin * wanted)
        slot = slot if current else place + start
        while slot < place:
            yield current[0]
            slot += 1
        current, stop = [item], _nearest(end * wanted)
    while slot < stop and current:
        yield current[0]
        slot += 1


def count_at_rate(spans: Sequence[tuple[Fraction, Fraction]], rate: float) -> int:
    """How many frames `frames_at_rate` gives of frames with these times and ends, which there are."""
    wanted = exact_rate(rate)
    last = max(_nearest(spans[-1][1] * wanted), *(_nearest(begin * wanted) for begin, _ in spans))
    return last - _nearest(spans[0][0] * wanted)


def exact_rate(rate: float) -> Fraction:
    """A rate as the fraction that it was written as: 30000 / 1001 for 29.97002997..., 2997 / 125 for 23.976."""
    return Fraction(rate).limit_denominator(LARGEST_DENOMINATOR)


def _nearest(value: Fraction) -> int:
    """To the nearest whole number, halves away from zero, as FFmpeg's AV_ROUND_NEAR_INF."""
    return floor(value + Fraction(1, 2)) if value >= 0 else -floor(Fraction(1, 2) - value)
