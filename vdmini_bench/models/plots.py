"""A picture of a model's blocks, and of what a plan removes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vdmini_bench.models.inspect import Inspection


KEPT, REMOVED = "#31688e", "#fde0c5"


def plot_blocks(inspection: Inspection, path: Path) -> None:
    """Draw each block's weights and FLOPs as bars in the order they run, removed ones pale and hatched."""
    # Figures of their own, not pyplot's: nothing global is touched and no screen is needed.
    from matplotlib.figure import Figure

    graph = inspection.teacher
    blocks = [block for block in graph.blocks if block.prunable]
    figure = Figure(figsize=(max(7.0, 0.24 * len(blocks)), 5.5), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True)
    for axes, label, values in (
        (above, "params (M)", [block.params / 1e6 for block in blocks]),
        (below, "GFLOP", [block.flops / 1e9 for block in blocks]),
    ):
        bars = axes.bar(range(len(blocks)), values, color=KEPT, edgecolor="#333333", linewidth=0.5)
        for bar, block in zip(bars, blocks, strict=True):
            if not inspection.kept(block.name):
                bar.set(facecolor=REMOVED, hatch="///")
        axes.set_ylabel(label)
        axes.spines[["top", "right"]].set_visible(False)
    below.set_xticks(range(len(blocks)), [block.name for block in blocks], rotation=90, fontsize=7)
    title = f"{inspection.model.source} at {graph.input}"
    student = inspection.student
    if student is not None and inspection.plan is not None:
        title += (
            f"\nplan {inspection.plan.rule}: {graph.params / 1e6:,.1f} to {student.params / 1e6:,.1f} M weights,"
            f" FLOPs x{student.flops / graph.flops:.3f} (removed: pale)"
        )
    above.set_title(title, fontsize=9, loc="left")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
