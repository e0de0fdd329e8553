"""The values of a report's sections, each from the run's data; a section without any has None."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from vdmini_bench.compare.deltas import compare_result_sets
from vdmini_bench.compare.result_sets import ResultSet
from vdmini_bench.errors import NothingMeasuredError
from vdmini_bench.report.data import ReportData
from vdmini_bench.report.player import player
from vdmini_bench.report.scales import spanning, spanning_logarithms
from vdmini_bench.results.records import Record
from vdmini_bench.results.score import Score
from vdmini_bench.results.table import DRAWN, TITLES, wide_table

# What stands for quality in the picture of quality against latency: the first of these that was measured.
QUALITIES = ("fvd", "vbench_total", "vbench_quality")
LATENCIES = ("latency_end_to_end", "latency_denoiser")
# What tells how fast and large models are; all else says how good they are.
COSTS = ("latency", "speedup", "params", "peak_memory", "denoiser_gflops")
# As many as the page's style has colours for.
COLOURS = 6
Values = dict[str, Any]


def scores(data: ReportData) -> Values:
    """The table of the run, and what kind of numbers they are."""
    header, lines = wide_table(data.rows)
    return {"notes": sorted({row.note for row in data.rows if row.note}), "header": header, "lines": lines}


def differences(data: ReportData) -> Values | None:
    """Teacher against student, metric by metric."""
    whole = ResultSet(data.name, data.name, data.records)
    try:
        deltas = compare_result_sets(whole.of("teacher"), whole.of("student"), allow_unlike=True)
    except NothingMeasuredError:
        return None
    lines = [
        [TITLES.get(delta.metric, delta.metric), *delta.cells(), "; ".join((delta.verdict, *delta.unlike))]
        for delta in deltas
    ]
    return {"lines": lines}


def tradeoff(data: ReportData) -> Values | None:
    """Quality against latency, one disc a model."""
    found = {(record.score.model, record.score.metric): record.score for record in data.records if _measured(record)}
    names = list(dict.fromkeys(metric for _, metric in found))
    # Those of the drawn world say more of a model than one dimension does.
    others = sorted((name for name in names if not name.startswith(COSTS)), key=lambda name: not name.startswith(DRAWN))
    quality = next((name for name in (*QUALITIES, *others) if name in names), None)
    latency = next((name for name in LATENCIES if name in names), None)
    if quality is None or latency is None:
        return None
    pairs = [
        (index, found[model, latency], found[model, quality])
        for index, model in enumerate(data.models)
        if {(model, latency), (model, quality)} <= {*found}
    ]
    if not pairs:
        return None
    params = {model: _params(data, model) for model in data.models}
    largest = max(params[timed.model] or 0.0 for _, timed, _ in pairs)
    points = [
        {
            **_mark(index, judged), "latency": timed.value, "latency_error": timed.standard_error or 0.0,
            "quality": judged.value, "quality_error": judged.standard_error or 0.0, "params_m": params[timed.model],
            "radius": 22 * math.sqrt((params[timed.model] or 0.0) / largest) if params[timed.model] else 7.0,
        }
        for index, timed, judged in pairs
    ]  # fmt: skip
    levels = {
        model: score.value or 0.0
        for (model, metric), score in found.items()
        if metric == quality and (model, latency) not in found
    }
    return {
        "points": points,
        "levels": levels,
        "across": spanning(_ends(timed for _, timed, _ in pairs), 64.0, 520.0, zero=True),
        "up": spanning([*_ends(judged for *_, judged in pairs), *levels.values()], 330.0, 30.0),
        "quality": TITLES.get(quality, quality),
        "latency": TITLES[latency],
        "better": pairs[0][2].better,
    }


def clips(data: ReportData) -> Values:
    """The same requests from every model, to be played."""
    return {"player": "" if data.examples is None else player(data.examples)}


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
            scale = spanning(_ends(found), 92.0, 280.0, zero=True)
            bars = [_mark(order[score.model], score) for score in found]
            shown.append((title, "" if better == "neither" else f"{better} is better", bars, scale))
    return {"shown": shown, "missing": missing}


def losses(data: ReportData) -> Values | None:
    """Each loss over the steps, on a logarithmic scale where it falls by more than one order of magnitude."""
    if data.losses is None:
        return None
    curves = []
    for name, values in data.losses.series.items():
        wide = min(values) > 0 and max(values) > 10 * min(values)
        across = spanning(data.losses.steps, 60.0, 390.0)
        up = (spanning_logarithms if wide else spanning)(values, 156.0, 30.0)
        places = zip(map(across, data.losses.steps), map(up, values), strict=True)
        curves.append((name, "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in places), across, up))
    return {"curves": curves}


def importance(data: ReportData) -> Values | None:
    """What clips lose without each block, and which of them the student lacks."""
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
    lines.append(f"vdmini-bench compare teacher student --run {shlex.quote(data.name)}")
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


def _mark(index: int, score: Score) -> Values:
    """A model in a picture: its colour goes by its index."""
    error = score.standard_error or 0.0
    return {"model": score.model, "colour": index % COLOURS, "value": score.value, "error": error}


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
