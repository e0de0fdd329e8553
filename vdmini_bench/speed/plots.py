"""Pictures of where a denoiser's time goes: stacked bars by stage, and blocks under the device's roofline."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vdmini_bench.speed.blocks import BlockTime
    from vdmini_bench.speed.roofline import Roofline

OTHER = "#bbbbbb"


def plot_stacks(blocks: Sequence[BlockTime], title: str, path: Path) -> None:
    """Draw a bar a model, stacked by block in the order that stages run, a colour a stage: medians in milliseconds."""
    # Figures of their own, not pyplot's: nothing global is touched and no screen is needed.
    from matplotlib import colormaps
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    models, stages = (list(dict.fromkeys(getattr(each, name) for each in blocks)) for name in ("model", "stage"))
    shades, last = colormaps["viridis"], max(1, len(stages) - 2)
    colours: dict[str, Any] = {stage: shades(place / last) for place, stage in enumerate(stages)}
    colours["outside"] = OTHER
    figure = Figure(figsize=(9.0, 1.8 + 0.6 * len(models)), layout="constrained")
    axes = figure.subplots()
    whole = 0.0
    for model in models:
        end = 0.0
        # Stages keep the order of the teacher's.
        for block in sorted(
            (each for each in blocks if each.model == model), key=lambda each: stages.index(each.stage)
        ):
            colour = colours[block.stage]
            axes.barh(model, block.median_ms, left=end, color=colour, edgecolor="white", linewidth=0.4)
            end += block.median_ms
        whole = whole or end
        axes.text(
            end, model, f"  {end:.4g} ms" + (f", x{whole / end:.2f}" if end < whole else ""), va="center", fontsize=8
        )
    axes.margins(x=0.15)
    axes.set_xlim(left=0)
    axes.invert_yaxis()
    axes.set_xlabel("ms in one eager denoiser pass; a white line ends a block")
    axes.set_title(title, fontsize=9, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    keys = [Patch(facecolor=colours[stage], label=stage) for stage in stages]
    figure.legend(handles=keys, frameon=False, fontsize=7, ncols=10, loc="outside lower center")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)


def plot_roofline(blocks: Sequence[BlockTime], roofline: Roofline, title: str, path: Path) -> None:
    """Draw each block's FLOP/s over its FLOPs a byte, under what the device's memory and its products allow."""
    from matplotlib.figure import Figure

    shown = [each for each in blocks if each.flops and each.bytes_moved and each.median_ms]
    figure = Figure(figsize=(7.5, 5.0), layout="constrained")
    axes = figure.subplots()
    intensities = [each.flops / each.bytes_moved for each in shown]
    ridge = roofline.flops_per_second / roofline.bytes_per_second
    low, high = min([*intensities, ridge]) / 3, max([*intensities, ridge]) * 3
    roof = [(x, min(x * roofline.bytes_per_second, roofline.flops_per_second) / 1e12) for x in (low, ridge, high)]
    axes.plot(*zip(*roof, strict=True), color="#333333", linewidth=1.2, label="measured roofline")
    for model, mark in zip(dict.fromkeys(each.model for each in shown), "osD^vP*X" * 4, strict=False):
        own = [(x, each) for x, each in zip(intensities, shown, strict=True) if each.model == model]
        axes.scatter([x for x, _ in own], [e.flops_per_second / 1e12 for _, e in own], s=18, marker=mark, label=model)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("FLOP a byte, if every operation reads and writes memory")
    axes.set_ylabel("TFLOP/s")
    axes.set_title(title, fontsize=9, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
