"""Plots for reports: what a model's blocks cost, and what they matter."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vdmini_bench.studies.importance import RATIO

if TYPE_CHECKING:
    from vdmini_bench.results.stats import RankCorrelation
    from vdmini_bench.studies.importance import Importance

CONTENT, MOTION = "#31688e", "#e07b39"


def plot_importance(
    rows: Sequence[Importance], correlations: Mapping[str, Mapping[str, RankCorrelation]], path: Path
) -> None:
    """Draw, from shallow to deep, two bars a block and a unit on a logarithmic scale: what its loss costs."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11.0, 7.0), layout="constrained")
    for axes, kind in zip(figure.subplots(2, 1), ("block", "unit"), strict=True):
        shown = sorted((row for row in rows if row.kind == kind), key=lambda row: row.depth)
        indices = range(len(shown))
        for offset, name, label, colour in (
            (-0.2, "content", "content (spectrum)", CONTENT),
            (0.2, "motion", "motion", MOTION),
        ):
            heights = [getattr(row, name) or math.nan for row in shown]
            axes.bar([index + offset for index in indices], heights, 0.4, label=label, color=colour)
        for index, row in zip(indices, shown, strict=True):
            if row.content is None:
                axes.text(index, 0.02, "x", ha="center", color="#888888", transform=axes.get_xaxis_transform())
        labels = [f"{row.name}\n(depth {row.depth:.2g})" for row in shown]
        # What a block is worth spans orders of magnitude.
        axes.set_yscale("log")
        axes.set_xticks(indices, labels, rotation=90, fontsize=7)
        axes.set_ylabel("relative change of the clips")
        title = f"{kind}s taken out, shallow to deep (x: nothing can stand in its place)"
        found = correlations.get(kind, {})
        title += "".join(
            f"\n{name} against depth: {found[name]}" for name in ("content", "motion", RATIO) if name in found
        )
        axes.set_title(title, fontsize=9, loc="left")
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
