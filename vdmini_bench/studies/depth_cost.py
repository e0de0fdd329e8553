"""What a study of depth would take, by sizes alone."""

from __future__ import annotations

from vdmini_bench.config.depth import DepthStudy
from vdmini_bench.models.source import found_teacher
from vdmini_bench.runs.on_card import clip_flops, sized_model
from vdmini_bench.speed.cards import card_named
from vdmini_bench.speed.scopes import ClipSize
from vdmini_bench.studies.depth import Experiment, trials
from vdmini_bench.studies.worlds import FACTORS


def cost_lines(asked: DepthStudy, card: str) -> tuple[list[str], list[list[str]]]:
    """A header and a line for each teacher: blocks, clips, FLOPs, and predicted hours on a card; no weights are read.

    Raises:
        SuiteError: no card has that name, or a teacher's sizes are not known here.
        ModelLoadError: a folder cannot be read.
    """
    predicted = card_named(card)
    settings, lines = asked.settings, []
    size = ClipSize(settings.frames, settings.height, settings.width, settings.steps)
    # Of each pair two clips.
    clips: dict[Experiment, int] = {"removal": asked.clips, "patching": len(FACTORS) * asked.pairs * 2}
    experiments = [name for name, _ in trials(asked)]
    for teacher in asked.teachers:
        model = sized_model(teacher, found_teacher(teacher)[0])
        drawn = clip_flops(model, size, settings)
        blocks = len(model.blocks.prunable)
        # Once whole, and once for each block and phase.
        total = asked.parts * sum(clips[name] * (1 + blocks * experiments.count(name)) for name in {*experiments})
        hours = predicted.seconds(total * drawn, half=True) / 3600
        lines.append([teacher, str(blocks), f"{total:,}", f"{total * drawn / 1e15:,.0f}", f"{hours:,.1f}"])
    return ["teacher", "blocks", "clips", "PFLOP", f"hours on {card}, predicted"], lines
