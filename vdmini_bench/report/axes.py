"""What pictures are drawn with: scales, ticks, axes and error bars, as SVG without styles of its own."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from vdmini_bench.report.markup import Markup, Value, element

# As many as the page's style has colours for.
COLOURS = 6


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
        return [place * step for place in range(first, math.floor(self.high / step + 1e-9) + 1)]


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


def label(words: str, x: float, y: float, anchor: str = "start", kind: str = "label") -> Markup:
    """A text at a place."""
    return element("text", {"x": x, "y": y, "text-anchor": anchor, "class": kind}, words)


def line(x1: float, y1: float, x2: float, y2: float, kind: str) -> Markup:
    """A straight line."""
    return element("line", {"x1": x1, "y1": y1, "x2": x2, "y2": y2, "class": kind})


def error_bar(x1: float, x2: float, y: float, *, upright: bool = False) -> Markup:
    """A bar from `x1` to `x2` at `y` with ends, across or, with the axes exchanged, upright."""
    parts = [(x1, y, x2, y), (x1, y - 4, x1, y + 4), (x2, y - 4, x2, y + 4)]
    turned = [(b, a, d, c) for a, b, c, d in parts] if upright else parts
    return element("g", {}, *(line(*part, "error") for part in turned))


def horizontal_axis(scale: Scale, y: float, top: float, title: str) -> Markup:
    """Ticks below, lines of the grid up to `top`, and what is measured."""
    marks = [
        element(
            "g", {}, line(scale(tick), top, scale(tick), y, "grid"), label(short(tick), scale(tick), y + 16, "middle")
        )
        for tick in scale.ticks()
    ]
    name = label(title, (scale.start + scale.end) / 2, y + 34, "middle", "axis-title")
    return element("g", {}, *marks, name)


def vertical_axis(scale: Scale, x: float, right: float, title: str) -> Markup:
    """Ticks to the left, lines of the grid up to `right`, and what is measured, above."""
    marks = [
        element(
            "g", {}, line(x, scale(tick), right, scale(tick), "grid"), label(short(tick), x - 6, scale(tick) + 4, "end")
        )
        for tick in scale.ticks()
    ]
    return element("g", {}, *marks, label(title, 4, min(scale.start, scale.end) - 10, "start", "axis-title"))


def picture(title: str, width: float, height: float, *parts: str, own_size: bool = False) -> Markup:
    """An SVG as wide as the page has room for, or of its own size, with its title for those who do not see it."""
    attributes: dict[str, Value] = {
        "viewBox": f"0 0 {width:g} {height:g}",
        "role": "img",
        "aria-label": title,
        "class": "chart wide" if own_size else "chart",
        "preserveAspectRatio": "xMinYMin meet",
        "width": width if own_size else None,
        "height": height if own_size else None,
    }
    return element("svg", attributes, *parts)


def colour(place: int) -> str:
    """The class of a series by its place."""
    return f"series-{place % COLOURS}"


def _round_step(rough: float) -> float:
    power = 10.0 ** math.floor(math.log10(rough))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9))
