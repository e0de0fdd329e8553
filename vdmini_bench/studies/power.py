"""How many clips until a metric sees a loss: measured on one pool of scenes, checked on another that shares none.

A loss of 10 % means that every tenth clip of a model, whichever, is lost. It is seen where the 95 % interval that
`compare` gives of two models' paired blocks leaves 0 out, on the side where the loss moves the metric. The drawn world
and what breaks its clips are stand-ins.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vdmini_bench.data.synthetic import seeded_by
from vdmini_bench.metrics.flow import flow_distance
from vdmini_bench.metrics.frechet import Moments, frechet_distance_of_moments
from vdmini_bench.metrics.kernel import polynomial_mmd
from vdmini_bench.metrics.motion_statistics import motion_statistics
from vdmini_bench.metrics.reference import shipped_flows, shipped_moments
from vdmini_bench.results.stats import mean_interval
from vdmini_bench.studies.power_clips import LOSSES, SEEN, Loss, Pool, Readings, Take, measure_pool, network_logits
from vdmini_bench.studies.power_prediction import ClipEffect, Effect, Effects
from vdmini_bench.studies.sensitivity import Study
from vdmini_bench.system.files import write_atomically
from vdmini_bench.system.progress import progress
from vdmini_bench.system.tables import csv_lines

if TYPE_CHECKING:
    from torch import nn

# Scenes that effects are measured on, and others that predictions are checked on, looked at once. Those from 9201,
# 9401, 9601 and 9801 were looked at before, and the way to predict and the number of scenes were mended after it.
MEASURED, UNSEEN = 9101, 9901
SHARES = (0.0, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.85, 1.0)
BLOCK_SIZES = (10, 20, 40, 80)
# Blocks of clips that a prediction is checked with.
PROTOCOLS = ((3, 20), (6, 20))
DRAWS, RUNS = 150, 300
ARRAYS = ("logits", "magnitudes", "statistics")

Takes = Mapping[Take, Readings]


@dataclass(frozen=True)
class SetMetric:
    """A metric of a set of clips: what it reads of them, a row a clip, and its value."""

    array: str
    value: Callable[[NDArray[Any]], float]


def block_metrics(network: nn.Module) -> dict[str, SetMetric]:
    """Metrics of a block of clips against clips of the training groups; KVD's and the motion's are 240 of them."""
    real = Study(2, 2, 240).reference()
    logits = network_logits(real, network)
    moving = Moments.of(np.stack([motion_statistics(clip) for clip in real]))
    flows, moments = shipped_flows(), shipped_moments()
    return {
        "fvd": SetMetric("logits", lambda rows: frechet_distance_of_moments(Moments.of(rows), moments)),
        "kvd": SetMetric("logits", lambda rows: polynomial_mmd(rows, logits)),
        "flow_distance": SetMetric("magnitudes", lambda rows: flow_distance(rows.reshape(-1, 2), flows)),
        "frechet_motion": SetMetric("statistics", lambda rows: frechet_distance_of_moments(Moments.of(rows), moving)),
    }


def clip_metrics(takes: Takes) -> list[str]:
    """Metrics that are a mean over clips."""
    return [name for name in takes["first"] if name not in ARRAYS]


def two_models(takes: Takes, loss: Loss, lost: NDArray[np.bool_], random: np.random.Generator) -> list[Readings]:
    """What is read of the clips of two models, the second of which lost some.

    Which of two whole clips is whose is by chance, so that without a loss neither model is better.
    """
    swapped = ~lost & (random.random(len(lost)) < 0.5)
    models = []
    for names in (("first", "second"), ("second", "first")):
        whole = _either(swapped, *(takes[name] for name in names))
        models.append(whole if names[0] == "first" else _either(lost, whole, takes[loss]))
    return models


def _either(second: NDArray[np.bool_], one: Readings, other: Readings) -> Readings:
    """Of each clip what is read in one, or where `second` in the other."""
    return {
        name: np.where(second.reshape(-1, *(1,) * (rows.ndim - 1)), other[name], rows) for name, rows in one.items()
    }


def of_scenes(takes: Takes, scenes: NDArray[np.int64], names: Sequence[str]) -> dict[Take, Readings]:
    """What is read of some scenes, by these names."""
    return {take: {name: takes[take][name][scenes] for name in names} for take in SEEN}


def clip_differences(takes: Takes, name: str, loss: Loss) -> dict[str, NDArray[np.float64]]:
    """How the clips of two models differ in a metric, 2 N: where both are whole, and where the second's is lost.

    Either take is the first model's once, so that without a loss the mean is 0.
    """
    first, second, lost = (takes[take][name] for take in ("first", "second", loss))
    first_lost = takes["first_motion" if loss == "motion" else "first_content"][name]
    return {
        "whole": np.concatenate([second - first, first - second]),
        loss: np.concatenate([lost - first, first_lost - second]),
    }


def measure_clips(takes: Takes) -> list[ClipEffect]:
    """The moments of a clip's difference of the two models, by metric: whole, and lost either way."""
    found = {}
    for name in clip_metrics(takes):
        for loss in LOSSES:
            for what, values in clip_differences(takes, name, loss).items():
                found[name, what] = ClipEffect(name, what, *(float((values**power).mean()) for power in range(1, 5)))
    return [*found.values()]


def measure_effects(takes: Takes, metrics: Mapping[str, SetMetric]) -> list[Effect]:
    """By metric, loss, share lost and clips a block: mean and spread of a block's difference of the two models."""
    effects = []
    with progress("blocks", len(BLOCK_SIZES) * DRAWS) as advance:
        for size in BLOCK_SIZES:
            found: dict[tuple[str, Loss, float], list[list[float]]] = {}
            for draw in range(DRAWS):
                for key, pair in _pair_of_blocks(takes, metrics, size, draw).items():
                    found.setdefault(key, []).append(pair)
                advance(f"{size} clips")
            for (name, loss, share), pairs in found.items():
                values = np.array(pairs)
                # Blocks without a scene in common: half the variance of their difference is free of the pool's size.
                spread = float((values[:, 0] - values[:, 1]).std() / 2**0.5)
                mean = float(values.mean())
                # What 300 blocks do not show is no effect: its sign is chance.
                shown = abs(mean) > 2 * spread / values.size**0.5
                effects.append(Effect(name, loss, share, size, mean if shown else 0.0, spread))
    return effects


def _pair_of_blocks(
    takes: Takes, metrics: Mapping[str, SetMetric], size: int, draw: int
) -> dict[tuple[str, Loss, float], list[float]]:
    """Every difference of the two models on two blocks without a scene in common, of what is read by each array."""
    found: dict[tuple[str, Loss, float], list[float]] = {}
    for array in ARRAYS:
        random = seeded_by(f"power/{size}/{draw}")
        reading = {name: metric.value for name, metric in metrics.items() if metric.array == array}
        for scenes in random.permutation(len(takes["first"][array]))[: 2 * size].reshape(2, size):
            block = of_scenes(takes, scenes, [array])
            for loss in LOSSES:
                for share in SHARES:
                    first, second = two_models(block, loss, random.random(size) < share, random)
                    for name, value in reading.items():
                        found.setdefault((name, loss, share), []).append(value(second[array]) - value(first[array]))
    return found


@dataclass(frozen=True)
class Check:
    """A prediction beside what was seen: the loss that `blocks` of `size` clips are said to see in 80 % of runs."""

    metric: str
    loss: Loss
    blocks: int
    size: int
    share: float
    predicted: float
    seen: float
    seen_of_none: float


def check_predictions(effects: Effects, takes: Takes, metrics: Mapping[str, SetMetric]) -> list[Check]:
    """How often runs on unseen scenes see the loss that 80 % of them are predicted to see, and a loss that is none."""
    counts = sorted({blocks * size for blocks, size in PROTOCOLS})
    asked = [(name, loss, count, 1) for name in clip_metrics(takes) for loss in LOSSES for count in counts]
    asked += [(name, loss, *each) for name in metrics for loss in LOSSES for each in PROTOCOLS]
    checks = []
    with progress("runs", len(asked)) as advance:
        for name, loss, blocks, size in asked:
            advance(f"{name} {loss}")
            share = effects.share_seen(name, loss, blocks, size)
            if share is None:
                continue
            sign = effects.sign(name, loss, share, size)
            seen = [
                _share_of_runs(takes, name, metrics.get(name), loss, lost, blocks, size, sign) for lost in (share, 0.0)
            ]
            power = effects.power(name, loss, share, blocks, size)
            checks.append(Check(name, loss, blocks, size, share, power, *seen))
    return checks


def _share_of_runs(
    takes: Takes, name: str, metric: SetMetric | None, loss: Loss, share: float, blocks: int, size: int, sign: float
) -> float:
    """In which share of runs the interval of the paired blocks is beyond 0 on one side."""
    seen, of_clips = 0, {} if metric is not None else clip_differences(takes, name, loss)
    for run in range(RUNS):
        random = seeded_by(f"unseen/{name}/{loss}/{share}/{blocks}/{size}/{run}")
        if metric is None:
            scenes, lost = random.integers(len(of_clips["whole"]), size=blocks), random.random(blocks) < share
            differences = np.where(lost, of_clips[loss][scenes], of_clips["whole"][scenes]).tolist()
        else:
            differences = []
            for _ in range(blocks):
                scenes = random.choice(len(takes["first"][metric.array]), size, replace=False)
                block = of_scenes(takes, scenes, [metric.array])
                first, second = two_models(block, loss, random.random(size) < share, random)
                differences.append(metric.value(second[metric.array]) - metric.value(first[metric.array]))
        _, low, high = mean_interval(differences)
        seen += (low if sign > 0 else -high) > 0
    return seen / RUNS


def run_study(network: nn.Module, scenes: int, folder: Path) -> list[Check]:
    """Measure a pool of scenes, predict from it, check on as many others; writes its tables and `unseen.csv`.

    What is read of the clips is kept in `folder` and not read again.
    """
    metrics = block_metrics(network)
    measured = measure_pool(Pool(MEASURED, scenes), network, folder / "readings")
    effects = Effects(tuple(measure_effects(measured, metrics)), tuple(measure_clips(measured)))
    effects.write(folder)
    checked = measure_pool(Pool(UNSEEN, scenes), network, folder / "readings")
    found = check_predictions(effects, checked, metrics)
    header, lines = check_table(found)
    write_atomically(folder / "unseen.csv", csv_lines([header, *lines]))
    return found


def check_table(checks: Sequence[Check]) -> tuple[list[str], list[list[str]]]:
    """Header and lines, a check each."""
    lines = [
        [f"{cell:.4g}" if isinstance(cell, float) else str(cell) for cell in vars(each).values()] for each in checks
    ]
    return [*Check.__dataclass_fields__], lines
