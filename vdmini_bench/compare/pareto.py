"""Quality against latency: which rows no other dominates, and which beat the baseline with fewer steps."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from vdmini_bench.results.records import Record
from vdmini_bench.results.score import Better, Score
from vdmini_bench.results.table import DRAWN

# What stands for quality: the first of these that was measured, else what says how good models are.
QUALITIES = ("fvd", "vbench_total", "vbench_quality", "vbench_mean")
# What tells how fast and large models are, or how near they are to another, and not how good.
NO_QUALITIES = (
    "latency", "speedup", "params", "peak_memory", "denoiser_gflops", "decoder_gflops",
    "psnr", "ssim", "content_distance", "motion_distance",
)  # fmt: skip
# What was timed: the first of these that was.
SCOPES = ("end_to_end", "denoiser")
FEWER_STEPS = re.compile(r"sample: steps=\d+")


@dataclass(frozen=True)
class Point:
    """A row's latency as a multiple of the baseline's, and its quality in the metric's unit, with standard errors."""

    model: str
    latency: float
    quality: float
    latency_error: float = 0.0
    quality_error: float = 0.0


def measured_scores(records: Iterable[Record]) -> dict[tuple[str, str], Score]:
    """Scores that have a value, by model and metric."""
    scores = (record.score for record in records if record.score.status == "ok" and record.score.value is not None)
    return {(score.model, score.metric): score for score in scores}


def main_quality(records: Iterable[Record]) -> str | None:
    """The metric that stands for quality: FVD or VBench's, else another that says how good models are, or None."""
    better = {metric: score.better for (_, metric), score in measured_scores(records).items()}
    # Those of the drawn world say more of a model than one dimension does.
    others = sorted(better, key=lambda name: not name.startswith(DRAWN))
    others = [name for name in others if better[name] != "neither" and not name.startswith(NO_QUALITIES)]
    return next((name for name in (*QUALITIES, *others) if name in better), None)


def timed_scope(records: Iterable[Record]) -> str | None:
    """What was timed, the whole clip before one pass of the denoiser; None where nothing was."""
    metrics = {metric for _, metric in measured_scores(records)}
    return next((scope for scope in SCOPES if f"latency_{scope}" in metrics), None)


def quality_points(records: Sequence[Record], quality: str, scope: str, baseline: str) -> list[Point]:
    """The rows that have the metric `quality` and a latency in `scope`, in the order of the records.

    A latency is 1 for the baseline, 1 / speed-up for a row timed interleaved with it, else a ratio of medians.
    """
    found = measured_scores(records)
    points = []
    for model in dict.fromkeys(model for model, _ in found):
        judged, latency = found.get((model, quality)), _relative_latency(found, scope, model, baseline)
        if judged is not None and latency is not None:
            points.append(Point(model, latency[0], judged.value or 0.0, latency[1], judged.standard_error or 0.0))
    return points


def _relative_latency(
    found: Mapping[tuple[str, str], Score], scope: str, model: str, baseline: str
) -> tuple[float, float] | None:
    """A latency as a multiple of the baseline's, with its standard error; None where it is not known."""
    own, whole = (found.get((name, f"latency_{scope}")) for name in (model, baseline))
    speedup = found.get((model, f"speedup_{scope}"))
    if model == baseline:
        return None if own is None else (1.0, 0.0)
    if speedup is not None and speedup.value:
        return 1 / speedup.value, (speedup.standard_error or 0.0) / speedup.value**2
    if own is None or whole is None or not own.value or not whole.value:
        return None
    shares = (own.standard_error or 0.0) / own.value, (whole.standard_error or 0.0) / whole.value
    return own.value / whole.value, own.value / whole.value * math.hypot(*shares)


def dominated(points: Sequence[Point], better: Better) -> dict[str, Point]:
    """By row off the Pareto front, the row on it that dominates it; of several the one of the best quality.

    One row dominates another where it is no slower and no worse, and not equal in both; noise is not looked at.
    """
    front = [point for point in points if not any(_dominates(other, point, better) for other in points)]
    front.sort(key=lambda point: (_cost(point.quality, better), point.latency))
    rest = [point for point in points if point not in front]
    return {point.model: next(other for other in front if _dominates(other, point, better)) for point in rest}


def dominated_lines(points: Sequence[Point], better: Better) -> list[str]:
    """Each dominated row in words."""
    by_name, lines = {point.model: point for point in points}, []
    for model, other in dominated(points, better).items():
        slower = "slower and no better" if by_name[model].quality == other.quality else "slower and worse"
        how = slower if by_name[model].latency > other.latency else "worse and no faster"
        lines.append(f"{model} is {how} than {other.model}")
    return lines


def added_measures(models: Mapping[str, Sequence[str]], baseline: str) -> dict[str, tuple[str, ...]]:
    """The measures of each other row beyond the baseline's, of rows that have all of the baseline's."""
    shared = models.get(baseline, ())
    built = {name: measures for name, measures in models.items() if name != baseline and {*shared} <= {*measures}}
    return {name: tuple(each for each in measures if each not in shared) for name, measures in built.items()}


def fewer_steps(points: Iterable[Point], models: Mapping[str, Sequence[str]], baseline: str) -> list[Point]:
    """The baseline and the rows that only take another number of steps, by latency; empty where there are none."""
    added = added_measures(models, baseline)
    on = {name for name, measures in added.items() if len(measures) == 1 and FEWER_STEPS.fullmatch(measures[0])}
    curve = sorted((point for point in points if point.model in {*on, baseline}), key=lambda point: point.latency)
    return curve if len(curve) > 1 and any(point.model == baseline for point in curve) else []


def beside_fewer_steps(points: Iterable[Point], curve: Sequence[Point], better: Better, baseline: str) -> list[str]:
    """Each row beside that curve in words: whether it is better than the baseline with fewer steps at its latency.

    Between points of the curve its quality is interpolated linearly; beyond its ends it is that of the end.
    """
    lines = []
    for point in points if curve else ():
        if point in curve:
            continue
        reached = float(np.interp(point.latency, [on.latency for on in curve], [on.quality for on in curve]))
        ahead = _cost(point.quality, better) < _cost(reached, better)
        if point.latency < curve[0].latency and not ahead:
            lines.append(f"{point.model} is faster than {curve[0].model} and no better: no fewer steps were measured")
        else:
            values = f"{point.quality:.4g} against {reached:.4g}"
            how = "better" if ahead else "no better"
            lines.append(f"{point.model} is {how} than {baseline} with fewer steps at its latency: {values}")
    return lines


def _dominates(point: Point, other: Point, better: Better) -> bool:
    equal = (point.latency, point.quality) == (other.latency, other.quality)
    no_worse = _cost(point.quality, better) <= _cost(other.quality, better)
    return point.latency <= other.latency and no_worse and not equal


def _cost(quality: float, better: Better) -> float:
    """Lower is better."""
    return -quality if better == "higher" else quality
