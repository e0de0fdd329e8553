"""The pictures of a report: quality against latency, bars with their errors, losses, and what blocks matter."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from vdmini_bench.report.axes import (
    colour,
    error_bar,
    horizontal_axis,
    label,
    line,
    picture,
    short,
    spanning,
    spanning_logarithms,
    vertical_axis,
)
from vdmini_bench.report.markup import Markup, Value, element

ROW = 26


@dataclass(frozen=True)
class Point:
    """One model between quality and latency; `place` decides its colour, errors are standard errors."""

    model: str
    place: int
    latency: float
    quality: float
    latency_error: float
    quality_error: float
    params_m: float | None


@dataclass(frozen=True)
class Bar:
    """One model's value of a metric with its standard error, 0 where there is none."""

    model: str
    place: int
    value: float
    error: float


@dataclass(frozen=True)
class BlockLoss:
    """What clips lose without one block; None where nothing can stand for it. `removed`: the student lacks it."""

    name: str
    content: float | None
    motion: float | None
    removed: bool


def pareto(points: Sequence[Point], levels: Mapping[str, float], quality: str, latency: str, better: str) -> Markup:
    """Draw models by latency (milliseconds) and quality; discs grow with the number of parameters.

    `levels` are those of rows that take no time, as dashed lines.
    """
    width, height, left, right, bottom = 640.0, 380.0, 64.0, 520.0, 330.0
    across = spanning([p.latency + s * p.latency_error for p in points for s in (-1, 1)], left, right, zero=True)
    reached = [p.quality + s * p.quality_error for p in points for s in (-1, 1)]
    up = spanning([*reached, *levels.values()], bottom, 30.0)
    largest = max((point.params_m or 0.0 for point in points), default=0.0)
    parts = [
        horizontal_axis(across, bottom, 30.0, latency),
        vertical_axis(up, left, right, f"{quality}, {better} is better"),
    ]
    for name, level in levels.items():
        parts += [
            line(left, up(level), right, up(level), "level"),
            label(name, right + 6, up(level) + 4, kind="level-name"),
        ]
    for point in points:
        x, y = across(point.latency), up(point.quality)
        size = 22 * math.sqrt(point.params_m / largest) if point.params_m else 7.0
        said = f"{point.model}: {quality} {short(point.quality)}, {short(point.latency)} ms"
        said += f", {short(point.params_m)} M parameters" if point.params_m else ""
        parts += [
            element(
                "circle",
                {"cx": x, "cy": y, "r": size, "class": f"point {colour(point.place)}"},
                element("title", {}, said),
            ),
            error_bar(across(point.latency - point.latency_error), across(point.latency + point.latency_error), y),
            error_bar(
                up(point.quality - point.quality_error), up(point.quality + point.quality_error), x, upright=True
            ),
            label(point.model, x + size + 5, y - 6, kind="point-name"),
        ]
    return picture(f"{quality} against {latency}", width, height, *parts)


def bars(title: str, better: str, shown: Sequence[Bar]) -> Markup:
    """Draw one bar a model, from zero, with its standard error and its value in words."""
    width, left, right, top = 400.0, 92.0, 280.0, 30.0
    scale = spanning([bar.value + s * bar.error for bar in shown for s in (-1, 1)], left, right, zero=True)
    parts = [label(title, 4, 16, kind="axis-title"), label(better, width - 4, 16, "end", "note")]
    for row, bar in enumerate(shown):
        y = top + row * ROW
        ends = sorted((scale(0.0), scale(bar.value)))
        box = {"x": ends[0], "y": y, "width": max(ends[1] - ends[0], 0.5), "height": ROW - 8.0}
        parts += [
            label(bar.model, left - 8, y + 13, "end"),
            element("rect", {**box, "class": f"bar {colour(bar.place)}"}),
            label(f"{short(bar.value)}{f' ± {bar.error:.2g}' if bar.error else ''}", right + 8, y + 13),
        ]
        if bar.error:
            parts.append(error_bar(scale(bar.value - bar.error), scale(bar.value + bar.error), y + (ROW - 8) / 2))
    return picture(title, width, top + ROW * len(shown) + 4, *parts)


def loss_curve(name: str, steps: Sequence[int], values: Sequence[float]) -> Markup:
    """Draw one loss over the steps; on a logarithmic scale where it falls by more than one order of magnitude."""
    width, height, left, right, bottom, top = 400.0, 200.0, 60.0, 390.0, 156.0, 30.0
    wide = min(values) > 0 and max(values) > 10 * min(values)
    up = (spanning_logarithms if wide else spanning)(values, bottom, top)
    across = spanning(steps, left, right)
    path = "M" + "L".join(f"{across(step):.1f} {up(value):.1f}" for step, value in zip(steps, values, strict=True))
    parts = [
        horizontal_axis(across, bottom, top, "step"),
        vertical_axis(up, left, right, f"{name}{' (logarithmic)' if wide else ''}"),
        element("path", {"d": path, "class": "curve"}),
    ]
    return picture(f"{name} over the steps of the distillation", width, height, *parts)


def importance_chart(blocks: Sequence[BlockLoss]) -> Markup:
    """Draw two bars a block, shallow to deep: what content and motion lose without it; removed ones are hatched."""
    left, bottom, top, step = 64.0, 300.0, 44.0, 26.0
    width = left + step * len(blocks) + 10
    values = [value for block in blocks for value in (block.content, block.motion) if value and value > 0]
    up = spanning_logarithms(values, bottom, top)
    parts = [_hatching(), vertical_axis(up, left, width, "relative change of the clips (logarithmic)")]
    for place, block in enumerate(blocks):
        x = left + 4 + place * step
        for offset, value, kind in ((0.0, block.content, "content"), (9.0, block.motion, "motion")):
            if value is not None and value > 0:
                said = f"{block.name}: {kind} {short(value)}{', removed in the student' if block.removed else ''}"
                box = {"x": x + offset, "y": up(value), "width": 8.0, "height": bottom - up(value)}
                parts.append(element("rect", {**box, "class": f"bar {kind}"}, element("title", {}, said)))
                if block.removed:
                    parts.append(element("rect", {**box, "fill": "url(#removed)"}))
        if block.content is None:
            parts.append(label("x", x + 8, bottom - 4, "middle", "note"))
        turn = {
            "transform": f"translate({x + 12:.1f} {bottom + 8:.1f}) rotate(-90)",
            "text-anchor": "end",
            "class": "label",
        }
        parts.append(element("text", turn, block.name))
    parts += [
        element("rect", {"x": left + 250, "y": 6, "width": 10, "height": 10, "class": "bar content"}),
        label("content", left + 264, 15),
        element("rect", {"x": left + 324, "y": 6, "width": 10, "height": 10, "class": "bar motion"}),
        label("motion", left + 338, 15),
    ]
    return picture("What clips lose without each block", max(width, left + 420), bottom + 90, *parts, own_size=True)


def _hatching() -> Markup:
    stripe = element("path", {"d": "M0 6L6 0", "class": "hatch"})
    pattern: dict[str, Value] = {"id": "removed", "width": 6, "height": 6, "patternUnits": "userSpaceOnUse"}
    return element("defs", {}, element("pattern", pattern, stripe))
