"""A study of depth on disk and in a picture."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from vdmini.models.registry import VideoModel
from vdmini.plan import PruningPlan
from vdmini.rules import plan_removing
from vdmini_bench.config.depth import DepthStudy
from vdmini_bench.models.inspect import inspect_model
from vdmini_bench.studies.depth import EXPERIMENTS, PHASES, Effect
from vdmini_bench.studies.depth_verdicts import Answer, Contrast
from vdmini_bench.studies.plots import CONTENT, MOTION
from vdmini_bench.studies.worlds import FACTORS, Factor
from vdmini_bench.system.files import write_atomically
from vdmini_bench.system.tables import csv_lines

TABLE, VERDICTS = "depth.csv", "verdicts.json"
# The claims, each with the contrast that decides it and the sign it expects.
CLAIMS = {
    "shallow blocks carry content, deep ones motion": ("motion less content, by depth", True),
    "shallow blocks carry motion, deep ones content": ("motion less content, by depth", False),
    "the first and the last blocks carry most": ("first and last, less the middle", True),
}


def write_depth(
    folder: Path, study: DepthStudy, teachers: Mapping[str, Sequence[Effect]], found: Sequence[Contrast]
) -> None:
    """Write `depth.csv`, a line an effect, `verdicts.json`, and each teacher's plans that protect either factor.

    `teachers` has the effects by teacher, or, where a study has parts, by teacher and part, one after the other.
    """
    lines = [{"teacher": teacher, **asdict(effect)} for teacher, effects in teachers.items() for effect in effects]
    write_atomically(folder / TABLE, csv_lines([[*lines[0]], *(line.values() for line in lines)]))
    verdicts: dict[str, dict[str, object]] = {}
    for claim, each, answer in answers(found):
        verdicts.setdefault(claim, {})[f"{each.experiment}, {each.phase}"] = asdict(each) | {"verdict": answer}
    record = {"study": study.model_dump(), "verdicts": verdicts}
    write_atomically(folder / VERDICTS, json.dumps(record, indent=1, allow_nan=False) + "\n")
    (folder / "plans").mkdir(exist_ok=True)
    parts = [*teachers.values()]
    for number, teacher in enumerate(study.teachers):
        own = parts[number * study.parts : (number + 1) * study.parts]
        effects, model = [effect for part in own for effect in part], inspect_model(teacher, None).model
        for factor in FACTORS:
            plan = protecting_plan(model, effects, factor, study.removed)
            write_atomically(folder / "plans" / f"{number}-{factor}.json", plan.to_json())


def protecting_plan(model: VideoModel, effects: Sequence[Effect], factor: Factor, count: int) -> PruningPlan:
    """The plan without the `count` blocks whose removal alone costs least of a factor, all in all; raises PlanError."""
    cost: dict[str, float] = {}
    for each in effects:
        if (each.experiment, each.phase, each.factor) == ("removal", "all", factor):
            cost[each.block] = cost.get(each.block, 0.0) + each.value
    leaving = sorted(cost, key=lambda block: cost[block])[:count]
    return plan_removing(model, leaving, f"protect:{factor}")


def answers(found: Sequence[Contrast]) -> Iterator[tuple[str, Contrast, Answer]]:
    """Each claim with each contrast that speaks of it and what that says."""
    for claim, (contrast, positive) in CLAIMS.items():
        yield from ((claim, each, each.answer(positive)) for each in found if each.name == contrast)


def verdict_lines(found: Sequence[Contrast]) -> tuple[list[str], list[list[str]]]:
    """A header and a line for each claim, experiment and phase."""
    lines = [
        [
            claim, each.experiment, each.phase, answer,
            f"{each.mean:+.2f} ({each.low:+.2f} to {each.high:+.2f})", f"{each.least:.2f}",
        ]
        for claim, each, answer in answers(found)
    ]  # fmt: skip
    return ["claim", "experiment", "steps", "verdict", "contrast", "would have been seen"], lines


def plot_depth(teachers: Mapping[str, Sequence[Effect]], path: Path) -> None:
    """Draw, for each experiment and phase, content's and motion's effect by depth: the mean over teachers, and each."""
    from matplotlib.figure import Figure

    every = {(each.experiment, each.phase) for effects in teachers.values() for each in effects}
    experiments = [name for name in EXPERIMENTS if any(name == made for made, _ in every)]
    phases = [name for name in PHASES if any(name == phase for _, phase in every)]
    figure = Figure(figsize=(1.0 + 3.0 * max(2, len(phases)), 3.0 * len(experiments)), layout="constrained")
    grid = figure.subplots(len(experiments), len(phases), sharex=True, sharey="row", squeeze=False)
    for row, experiment in zip(grid, experiments, strict=True):
        for axes, phase in zip(row, phases, strict=True):
            for factor, colour in zip(FACTORS, (CONTENT, MOTION), strict=True):
                curves = [
                    {
                        each.depth: each.value
                        for each in effects
                        if (each.experiment, each.phase, each.factor) == (experiment, phase, factor)
                    }
                    for effects in teachers.values()
                ]
                depths = sorted(curves[0])
                for curve in curves:
                    axes.plot(depths, [curve[depth] for depth in depths], color=colour, alpha=0.25, linewidth=1)
                means = [statistics.fmean(curve[depth] for curve in curves) for depth in depths]
                axes.plot(depths, means, color=colour, marker="o", label=factor)
            axes.axhline(0, color="#999999", linewidth=0.8)
            axes.set_title(f"{experiment}, {phase}" + (" steps" if phase == "all" else " of the steps"), fontsize=9)
            axes.spines[["top", "right"]].set_visible(False)
        row[0].set_ylabel("lost" if experiment == "removal" else "carried over")
    for axes in grid[-1]:
        axes.set_xlabel("depth of the block")
    grid[0][0].legend(frameon=False, fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
