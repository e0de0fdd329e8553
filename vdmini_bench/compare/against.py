"""A run's rows against its baseline: what each lost, and which of them nothing else makes needless."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from vdmini_bench.compare.deltas import Delta, compare_result_sets
from vdmini_bench.compare.pareto import (
    NO_QUALITIES,
    beside_fewer_steps,
    dominated_lines,
    fewer_steps,
    main_quality,
    measured_scores,
    quality_points,
    timed_scope,
)
from vdmini_bench.compare.result_sets import ResultSet
from vdmini_bench.results.records import Record
from vdmini_bench.results.table import TITLES, titles_of_packages

# How a measure of the denoiser goes on where it was trained; see `config.models.ModelSpec.measures`.
DISTILLED = ", distilled"


def against_lines(
    records: Sequence[Record], models: Mapping[str, Sequence[str]], baseline: str
) -> tuple[list[str], list[list[str]]]:
    """The header, and a line for each other row: the differences in quality with 95 % intervals, and what they say.

    Metrics are those of the wide table that say how good a model is, else the main one of VBench's.
    """
    main, measured = main_quality(records), {metric for _, metric in measured_scores(records)}
    titles = TITLES | titles_of_packages(record.score for record in records)
    shown = [name for name in titles if name in measured and not name.startswith(NO_QUALITIES)] or [main or ""]
    whole, lines = ResultSet("", "", tuple(each for each in records if each.score.metric in shown)), []
    for model in models:
        if model == baseline or not {baseline, model} <= {*whole.models}:
            continue
        deltas = {each.metric: each for each in compare_result_sets(whole.of(baseline), whole.of(model), True)}
        lines.append(
            [model, *(_cell(deltas.get(metric)) for metric in shown), deltas[main].verdict if main in deltas else "-"]
        )
    title, found = titles.get(main or "", main or "quality"), recovered(records, models)
    header = [f"against {baseline}", *(titles.get(metric, metric) for metric in shown), f"in {title}"]
    if found:
        header.append(f"loss in {title} recovered")
        lines = [[*line, f"{found[line[0]]:.0%}" if line[0] in found else "-"] for line in lines]
    return header, lines


def recovered(records: Sequence[Record], models: Mapping[str, Sequence[str]]) -> dict[str, float]:
    """By trained row the share made good of what its pruning cost in the main quality: teacher less untrained."""
    scores, quality = measured_scores(records), main_quality(records) or ""
    values = {tuple(models[model]): scores[model, quality].value for model in models if (model, quality) in scores}
    whole, found = values.get(()), {}
    for model, measures in models.items():
        trained, own = [each for each in measures if DISTILLED in each], values.get(tuple(measures))
        untrained = values.get(tuple(each.partition(DISTILLED)[0] for each in measures))
        if trained and whole is not None and own is not None and untrained not in (None, whole):
            found[model] = (untrained - own) / (untrained - whole)
    return found


def _cell(delta: Delta | None) -> str:
    if delta is None or delta.delta is None:
        return "-"
    ends = "" if delta.interval is None else " ({:+.3g} to {:+.3g})".format(*delta.interval)
    return f"{delta.delta:+.3g}{ends}"


def remarks(records: Sequence[Record], models: Mapping[str, Sequence[str]], baseline: str) -> list[str]:
    """Which rows another dominates, and which beat the baseline with fewer steps, a line each."""
    quality, scope = main_quality(records), timed_scope(records)
    if quality is None or scope is None:
        return []
    points = quality_points(records, quality, scope, baseline)
    if not points:
        return []
    better = measured_scores(records)[points[0].model, quality].better
    beside = beside_fewer_steps(points, fewer_steps(points, models, baseline), better, baseline)
    return dominated_lines(points, better) + beside
