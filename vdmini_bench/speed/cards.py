"""Cards by name, by their data sheets, and what a model would take there: predictions, before there is one."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import torch

from vdmini_bench.errors import SuiteError
from vdmini_bench.models.inspect import Inspection
from vdmini_bench.speed.blocks import BlockCosts, block_costs

# What sampling and training of such models commonly reach of a card's peak: an assumption, not a measurement.
UTILISATION = 0.4


@dataclass(frozen=True)
class Card:
    """A card's memory, dense peaks in half precision and in float32 (TF32 where it has that), and memory bandwidth."""

    gib: float
    half_teraflops: float
    float_teraflops: float
    terabytes_per_second: float

    def seconds(self, flops: float, half: bool) -> float:
        """How long operations take at that share of the peak."""
        return flops / (UTILISATION * 1e12 * (self.half_teraflops if half else self.float_teraflops))


CARDS = {
    "h200": Card(131, 989, 494, 4.8),
    "h100-80gb": Card(80, 989, 494, 3.35),
    "a100-80gb": Card(80, 312, 156, 2.039),
    "a100-40gb": Card(40, 312, 156, 1.555),
    "l40s": Card(45, 362, 183, 0.864),
    "rtx-4090": Card(24, 165, 82, 1.008),
}


def card_named(name: str) -> Card:
    """The card of that name; raises SuiteError where there is none."""
    if name not in CARDS:
        raise SuiteError(f"--card {name}: choose one of {', '.join(CARDS)}")
    return CARDS[name]


def predict_pass(inspection: Inspection, name: str) -> dict[str, float]:
    """Milliseconds of a pass in bfloat16 by a card's roofline, `teacher_ms`; of a plan `student_ms` and `speedup` too.

    Raises:
        SuiteError: no card has that name, or the model was looked at under a rule for channels.
    """
    card = card_named(name)
    if inspection.narrowed is not None:
        raise SuiteError("--card predicts plans of whole blocks: leave --channels out")
    costs = block_costs(inspection.model.denoiser.to(torch.bfloat16), inspection.teacher.input)
    peaks = card.half_teraflops * 1e12, card.terabytes_per_second * 1e12
    whole = roofline_seconds(costs, *peaks)
    if inspection.plan is None:
        return {"teacher_ms": 1000 * whole}
    left = roofline_seconds(costs, *peaks, without=inspection.plan.removed)
    return {"teacher_ms": 1000 * whole, "student_ms": 1000 * left, "speedup": whole / left}


def roofline_seconds(
    costs: BlockCosts, flops_per_second: float, bytes_per_second: float, without: Collection[str] = ()
) -> float:
    """What a pass takes at best: of each block the longer of its arithmetic and its memory traffic, nothing fused.

    Williams, Waterman and Patterson 2009. `without` are blocks that a plan removes.
    """
    return sum(
        max(block.flops / flops_per_second, costs.bytes_moved[block.name] / bytes_per_second)
        for block in costs.graph.blocks
        if block.name not in without
    )
