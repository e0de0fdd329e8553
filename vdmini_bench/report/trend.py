"""The picture of a metric over time: one panel a series, with error bars, levels and steps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vdmini_bench.compare.history import Series, find_steps

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOUR, LEVEL_COLOUR, STEP_COLOUR = "#31688e", "#888888", "#c0392b"
LABELS = 12


def plot_trend(series: Sequence[Series], path: Path) -> None:
    """Draw each series against its runs in order, with standard errors, the level between steps, and the steps."""
    # Figures of their own, not pyplot's: nothing global is touched and no screen is needed.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.0, 0.6 + 2.6 * len(series)), layout="constrained")
    for axes, each in zip(figure.subplots(len(series), 1, squeeze=False)[:, 0], series, strict=True):
        _draw(axes, each)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def _draw(axes: Axes, series: Series) -> None:
    points = series.points
    indices = range(len(points))
    values = [point.value for point in points]
    errors = [point.standard_error or 0.0 for point in points]
    axes.errorbar(indices, values, yerr=errors, fmt="o-", color=COLOUR, markersize=4, linewidth=0.8, capsize=2)
    steps = find_steps(series)
    ends = [0, *(step.index for step in steps), len(points)]
    levels = [steps[0].before, *(step.after for step in steps)] if steps else []
    for level, start, end in zip(levels, ends, ends[1:], strict=False):
        axes.hlines(level, start - 0.4, end - 0.6, color=LEVEL_COLOUR, linewidth=1.5)
    for step in steps:
        axes.axvline(step.index - 0.5, color=STEP_COLOUR, linestyle="--", linewidth=1)
    stride = max(1, -(-len(points) // LABELS))
    axes.set_xticks(
        list(indices)[::stride], [_label(point.date, point.commit) for point in points][::stride], fontsize=7
    )
    unit = f" ({series.unit})" if series.unit else ""
    good = "" if series.better == "neither" else f", {series.better} is better"
    # A dollar sign of a name would start a formula.
    recipe = f" ({series.recipe})" if series.recipe else ""
    names = f"{series.model}{recipe} {series.metric}{unit}{good}, {series.suite}/{series.profile}, {series.protocol}"
    axes.set_title(f"{names}, machine {series.machine_id or 'unknown'}", fontsize=8, loc="left", parse_math=False)
    axes.spines[["top", "right"]].set_visible(False)


def _label(date: str, commit: str) -> str:
    return f"{date[:10]}\n{commit[:7]}".replace("$", "")
