"""VBench's normalised scores, groups and totals: numbers in, numbers out, and no total where a dimension is missing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from vdmini_bench.config.vbench_dimensions import DIMENSIONS, OF_MODE

# Total = (4 Quality + Semantic) / 5 for text to video, (Quality + I2V) / 2 for image to video.
WEIGHTS = {"t2v": (4.0, 1.0), "i2v": (1.0, 1.0)}


@dataclass(frozen=True)
class Totals:
    """Normalised scores by dimension, and the groups; a value is None where a dimension that it needs is `missing`.

    `alignment` is the Semantic score of text to video and the I2V score of image to video.
    """

    normalised: dict[str, float]
    quality: float | None
    alignment: float | None
    total: float | None
    missing: tuple[str, ...]


def normalise(dimension: str, score: float) -> float:
    """(score - low) / (high - low), not clamped, as the official scripts have it."""
    of = DIMENSIONS[dimension]
    return (score - of.low) / (of.high - of.low)


def compute_totals(scores: Mapping[str, float], mode: Literal["t2v", "i2v"]) -> Totals:
    """The official groups and total of raw scores, which run from 0 to 1; dimensions of another mode are left out.

    Source: scripts/cal_final_score.py and cal_i2v_final_score.py of the VBench repository, which count a missing
    dimension as 0; here there is no value then.
    """
    quality_names = [name for name in OF_MODE[mode] if DIMENSIONS[name].group == "quality"]
    other_names = [name for name in OF_MODE[mode] if DIMENSIONS[name].group != "quality"]
    names = (*quality_names, *other_names)
    normalised = {name: normalise(name, scores[name]) for name in names if name in scores}
    quality, other = _weighted_mean(normalised, quality_names), _weighted_mean(normalised, other_names)
    total = None
    if quality is not None and other is not None:
        of_quality, of_other = WEIGHTS[mode]
        total = (of_quality * quality + of_other * other) / (of_quality + of_other)
    return Totals(normalised, quality, other, total, tuple(name for name in names if name not in scores))


def total_weights(mode: Literal["t2v", "i2v"]) -> dict[str, float]:
    """How much of the official total a raw score of 1 in each dimension is worth more than one of 0."""
    none = dict.fromkeys(OF_MODE[mode], 0.0)
    without, totals = compute_totals(none, mode), {name: compute_totals(none | {name: 1.0}, mode) for name in none}
    return {name: (each.total or 0.0) - (without.total or 0.0) for name, each in totals.items()}


def _weighted_mean(normalised: Mapping[str, float], names: Sequence[str]) -> float | None:
    if any(name not in normalised for name in names):
        return None
    weighted = sum(normalised[name] * DIMENSIONS[name].weight for name in names)
    return weighted / sum(DIMENSIONS[name].weight for name in names)
