"""The values of a report's sections, each from the run's data; a section without any has None."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from vdmini_bench.compare import pareto
from vdmini_bench.compare.deltas import compare_result_sets
from vdmini_bench.compare.multiplied import multiplied_lines
from vdmini_bench.compare.published import published_lines
from vdmini_bench.compare.result_sets import ResultSet
from vdmini_bench.errors import NothingMeasuredError
from vdmini_bench.report.data import ReportData
from vdmini_bench.report.player import player
from vdmini_bench.report.scales import Scale, spanning, spanning_logarithms
from vdmini_bench.results.records import Record, measures_of, part_of
from vdmini_bench.results.score import Score
from vdmini_bench.results.table import TITLES, wide_table

LATENCIES = {"end_to_end": "end-to-end latency", "denoiser": "latency of the denoiser"}
# As many as the page's style has colours for.
COLOURS = 12
# Characters of a name that a picture has room for.
LONGEST_NAME = 24
Values = dict[str, Any]
# What is bet on, as `run --until decided` has it.
VERDICTS = ("no worse", "worse", "better")


def scores(data: ReportData) -> Values:
    """The table of the run, and what kind of numbers they are."""
    header, lines = wide_table(data.rows)
    return {"notes": sorted({row.note for row in data.rows if row.note}), "header": header, "lines": lines}


def differences(data: ReportData) -> Values | None:
    """Each model against the baseline, metric by metric."""
    whole, tables = ResultSet(data.name, data.name, data.records), {}
    for model in data.compared:
        try:
            deltas = compare_result_sets(whole.of(data.baseline), whole.of(model), allow_unlike=True)
        except NothingMeasuredError:
            continue
        tables[model] = [
            [TITLES.get(delta.metric, delta.metric), *delta.cells(), "; ".join((delta.verdict, *delta.unlike))]
            for delta in deltas
        ]
    return {"baseline": data.baseline, "tables": tables} if tables else None


def tradeoff(data: ReportData) -> Values | None:
    """Quality against latency, one disc a model; which none dominates, and which beat the baseline's fewer steps."""
    records, baseline = data.records, data.baseline
    quality, scope = pareto.main_quality(records), pareto.timed_scope(records)
    found = pareto.quality_points(records, quality, scope, baseline) if quality and scope else []
    if not found or quality is None:
        return None
    scores = {model: score for (model, metric), score in pareto.measured_scores(records).items() if metric == quality}
    better, places = scores[found[0].model].better, {model: place for place, model in enumerate(data.models)}
    params = {point.model: _params(data, point.model) for point in found}
    largest = max(size or 0.0 for size in params.values())
    beaten, curve = pareto.dominated(found, better), pareto.fewer_steps(found, measures_of(data.run), baseline)
    points = [
        {
            **asdict(point), "name": _cut(point.model), "colour": places[point.model] % COLOURS,
            "params_m": params[point.model],
            "radius": 22 * math.sqrt((params[point.model] or 0.0) / largest) if params[point.model] else 7.0,
            "front": point.model not in beaten,
        }
        for point in found
    ]  # fmt: skip
    levels = {model: score.value or 0.0 for model, score in scores.items() if model not in params}
    fast = [point.latency + sign * point.latency_error for point in found for sign in (-1, 1)]
    across = spanning(fast, 64.0, 520.0, zero=True)
    up = spanning([*_ends(scores[point.model] for point in found), *levels.values()], 330.0, 30.0)
    path = _path(across, up, ((each.latency, each.quality) for each in curve))
    lines = [*pareto.dominated_lines(found, better), *pareto.beside_fewer_steps(found, curve, better, baseline)]
    shown = {"points": points, "levels": levels, "across": across, "up": up, "path": path, "better": better}
    names = {"quality": TITLES.get(quality, quality), "latency": f"{LATENCIES[scope or '']}, {baseline} = 1"}
    return {"chart": shown | names, "lines": lines, "baseline": baseline if curve else None}


def decided(data: ReportData) -> Values | None:
    """What was decided of each model after each part of the prompts, where the run was until that."""
    path = data.settings("until_decided")
    if not path:
        return None
    lines = [
        [f"{step['prompts']} of {step['of']}", each["model"], each["metric"], f"{each['difference']:+.4f}",
         *(f"{won:.3g}" for won in each["evidence"].values()), each["verdict"]]
        for step in path for each in step["decided"]
    ]  # fmt: skip
    header = ["prompts", "model", "metric", "difference", *(f"evidence: {name}" for name in VERDICTS), "verdict"]
    return {"margin": path[-1]["margin"], "header": header, "lines": lines}


def multiplied(data: ReportData) -> Values | None:
    """Rows of several measures beside what each measure gives alone."""
    header, lines = multiplied_lines(data.records, measures_of(data.run), data.baseline)
    return {"header": header, "lines": lines} if lines else None


def published(data: ReportData) -> Values | None:
    """Numbers that others report, beside ours."""
    header, lines = published_lines(data.records, part_of(data.run, "suite", "profile", "published") or ())
    return {"header": header, "lines": lines} if lines else None


def clips(data: ReportData) -> Values:
    """The same requests from every model, to be played."""
    return {"player": "" if data.examples is None else player(data.examples, data.baseline)}


def metrics(data: ReportData) -> Values:
    """Bars with standard errors, one picture a metric; what was not measured is named."""
    order = {model: index for index, model in enumerate(data.models)}
    by_metric: dict[str, list[Record]] = {}
    for record in data.records:
        by_metric.setdefault(record.score.metric, []).append(record)
    shown, missing = [], []
    for name in [*(name for name in TITLES if name in by_metric), *(name for name in by_metric if name not in TITLES)]:
        missing += _missing(name, [each for each in by_metric[name] if not _measured(each)])
        found = [each.score for each in by_metric[name] if _measured(each)]
        found.sort(key=lambda score: order[score.model])
        if found:
            unit, better = found[0].unit, found[0].better
            title = TITLES.get(name, f"{name} ({unit})" if unit else name)
            # Names stand before the bars; longer ones are cut.
            longest = min(LONGEST_NAME, max(len(score.model) for score in found))
            scale = spanning(_ends(found), max(92.0, 20.0 + 7.0 * longest), 290.0, zero=True)
            bars = [_mark(order[score.model], score) for score in found]
            shown.append((title, "" if better == "neither" else f"{better} is better", bars, scale))
    return {"shown": shown, "missing": missing}


def losses(data: ReportData) -> Values | None:
    """Each loss over the steps, on a logarithmic scale where it falls by more than one order of magnitude."""
    curves = []
    for row, found in data.losses.items():
        for name, values in found.series.items():
            wide = min(values) > 0 and max(values) > 10 * min(values)
            across = spanning(found.steps, 60.0, 390.0)
            up = (spanning_logarithms if wide else spanning)(values, 156.0, 30.0)
            path = _path(across, up, zip(found.steps, values, strict=True))
            curves.append((f"{row}: {name}" if row else name, path, across, up))
    return {"curves": curves} if curves else None


def importance(data: ReportData) -> Values | None:
    """What clips lose without each block, and which of them pruning took out."""
    losses = [value for block in data.blocks for value in (block.content, block.motion) if value and value > 0]
    return {"blocks": data.blocks, "up": spanning_logarithms(losses, 300.0, 44.0)} if data.blocks else None


def environment(data: ReportData) -> Values:
    """Hardware, software and code."""
    fingerprint, warnings = data.settings("fingerprint"), data.settings("warnings")
    found = dict(flattened(fingerprint if isinstance(fingerprint, dict) else {}))
    if not found and data.rows:
        found = {name: getattr(data.rows[0], name) for name in ("machine_id", "gpu", "torch", "commit")}
    return {"found": [*found.items()], "warnings": warnings if isinstance(warnings, list) else []}


def protocol(data: ReportData) -> Values:
    """All settings of the suite as they were resolved."""
    names, settings = {record.score.protocol for record in data.records}, data.settings("suite")
    shown = [*flattened(settings)] if isinstance(settings, dict) else None
    return {"names": ", ".join(sorted(names)), "settings": shown}


def commands(data: ReportData) -> Values:
    """What to type to get these numbers again."""
    lines = []
    commit, versions = data.settings("fingerprint", "commit"), data.settings("fingerprint", "versions")
    if isinstance(commit, str) and commit not in ("", "unknown"):
        dirty = "  # and what was changed since" if data.settings("fingerprint", "dirty") else ""
        lines.append(f"git checkout {shlex.quote(commit)}{dirty}")
    if isinstance(versions, dict):
        wanted = [f"{name}=={value}" for name, value in versions.items() if name != "vdmini" and value != "missing"]
        lines.append(f"pip install {shlex.join(wanted)} -e .")
    argv = data.settings("argv")
    if isinstance(argv, list) and len(argv) > 1 and Path(str(argv[0])).name in ("vdmini-bench", "__main__.py"):
        lines.append(shlex.join(["vdmini-bench", *map(str, argv[1:])]))
    for model in data.compared[-1:]:
        lines.append(shlex.join(["vdmini-bench", "compare", data.baseline, model, "--run", data.name]))
    lines.append(f"vdmini-bench report {shlex.quote(data.name)}")
    return {"lines": "\n".join(lines)}


def flattened(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Nested settings as `key.path` and text, lists on one line."""
    for key, value in settings.items():
        if isinstance(value, dict):
            yield from flattened(value, f"{prefix}{key}.")
        elif isinstance(value, list):
            yield f"{prefix}{key}", ", ".join(map(str, value))
        else:
            yield f"{prefix}{key}", str(value)


def _path(across: Scale, up: Scale, places: Iterable[tuple[float, float]]) -> str:
    """A line through places, as SVG writes it; empty for none."""
    drawn = [f"{across(x):.1f} {up(y):.1f}" for x, y in places]
    return "M" + "L".join(drawn) if drawn else ""


def _mark(index: int, score: Score) -> Values:
    """A model in a picture: its colour goes by its index."""
    error = score.standard_error or 0.0
    return {"name": _cut(score.model), "colour": index % COLOURS, "value": score.value, "error": error}


def _cut(name: str) -> str:
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…"


def _ends(scores: Iterable[Score]) -> list[float]:
    """Values less and plus their standard errors."""
    return [(each.value or 0.0) + sign * (each.standard_error or 0.0) for each in scores for sign in (-1, 1)]


def _measured(record: Record) -> bool:
    return record.score.status == "ok" and record.score.value is not None


def _missing(metric: str, records: Sequence[Record]) -> list[str]:
    """One line for all models that lack a metric for the same reason."""
    models: dict[tuple[str, str], list[str]] = {}
    for record in records:
        models.setdefault((record.score.status, record.row.note), []).append(record.score.model)
    return [
        f"{metric}: {status} for {', '.join(names)}{f' ({note})' if note else ''}"
        for (status, note), names in models.items()
    ]


def _params(data: ReportData, model: str) -> float | None:
    counted = (
        row.params_m or (row.value if row.metric == "params_m" else "") for row in data.rows if row.model == model
    )
    return next((float(cell) for cell in counted if cell), None)
