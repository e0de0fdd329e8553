"""The sections of a report, each from the run's material; a section without material is empty."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from vdmini_bench.compare.deltas import compare_result_sets
from vdmini_bench.compare.result_sets import ResultSet
from vdmini_bench.errors import NothingMeasuredError
from vdmini_bench.report.charts import Bar, Point, bars, importance_chart, loss_curve, pareto
from vdmini_bench.report.markup import NONE, Markup, element, join
from vdmini_bench.report.material import Material
from vdmini_bench.results.records import Record
from vdmini_bench.results.table import DRAWN, TITLES, wide_table
from vdmini_bench.system.tables import interval_cell, number_cell

# What stands for quality in the picture of quality against latency: the first of these that was measured.
QUALITIES = ("fvd", "vbench_total", "vbench_quality")
LATENCIES = ("latency_end_to_end", "latency_denoiser")
# What tells how fast and large models are; all else says how good they are.
COSTS = ("latency", "speedup", "params", "peak_memory", "denoiser_gflops")
NOTHING = Markup("")


def summary(material: Material) -> Markup:
    """The table of the run, and what kind of numbers they are."""
    header, lines = wide_table(material.rows)
    notes = sorted({row.note for row in material.rows if row.note})
    return join((*(element("p", {"class": "note"}, note) for note in notes), data_table("Scores", header, lines)))


def differences(material: Material) -> Markup:
    """Teacher against student, metric by metric."""
    try:
        deltas = compare_result_sets(_side(material, "teacher"), _side(material, "student"), allow_unlike=True)
    except NothingMeasuredError:
        return NOTHING
    lines = [
        [
            TITLES.get(delta.metric, delta.metric), number_cell(delta.a), number_cell(delta.b),
            number_cell(delta.delta, 4), interval_cell(delta.interval), number_cell(delta.ratio, 4),
            "; ".join((delta.verdict, *delta.unlike)),
        ]
        for delta in deltas
    ]  # fmt: skip
    header = ["metric", "teacher", "student", "difference", "95 % interval", "ratio", "verdict"]
    return data_table("Student minus teacher", header, lines)


def tradeoff(material: Material) -> Markup:
    """Quality against latency, one disc a model."""
    scores = {(record.score.model, record.score.metric): record for record in material.records if _measured(record)}
    metrics = list(dict.fromkeys(metric for _, metric in scores))
    # Those of the drawn world say more of a model than one dimension does.
    others = sorted(
        (name for name in metrics if not name.startswith(COSTS)), key=lambda name: not name.startswith(DRAWN)
    )
    quality = next((name for name in (*QUALITIES, *others) if name in metrics), None)
    latency = next((name for name in LATENCIES if name in metrics), None)
    if quality is None or latency is None:
        return NOTHING
    points, levels = [], {}
    for place, model in enumerate(material.models):
        judged, timed = scores.get((model, quality)), scores.get((model, latency))
        if judged is None:
            continue
        if timed is None:
            levels[model] = judged.score.value or 0.0
            continue
        points.append(
            Point(
                model,
                place,
                timed.score.value or 0.0,
                judged.score.value or 0.0,
                timed.score.standard_error or 0.0,
                judged.score.standard_error or 0.0,
                _params(material, model),
            )
        )
    if not points:
        return NOTHING
    better = scores[points[0].model, quality].score.better
    drawn = pareto(points, levels, TITLES.get(quality, quality), TITLES[latency], better)
    return join(
        (
            element("div", scrolled("Quality against latency"), drawn),
            element("p", {"class": "note"}, "Discs grow with the number of parameters; dashed: not timed."),
        )
    )


def metrics(material: Material) -> Markup:
    """Bars with standard errors, one picture a metric; what was not measured is named."""
    order = {model: place for place, model in enumerate(material.models)}
    by_metric: dict[str, list[Record]] = {}
    for record in material.records:
        by_metric.setdefault(record.score.metric, []).append(record)
    names = [*(name for name in TITLES if name in by_metric), *(name for name in by_metric if name not in TITLES)]
    drawn, missing = [], []
    for name in names:
        found = sorted((each for each in by_metric[name] if _measured(each)), key=lambda each: order[each.score.model])
        missing += _missing(name, [each for each in by_metric[name] if not _measured(each)])
        if found:
            unit, better = found[0].score.unit, found[0].score.better
            title = TITLES.get(name, f"{name} ({unit})" if unit else name)
            shown = [
                Bar(one.score.model, order[one.score.model], one.score.value or 0.0, one.score.standard_error or 0.0)
                for one in found
            ]
            drawn.append(bars(title, "" if better == "neither" else f"{better} is better", shown))
    listed = element("ul", {"class": "note"}, *(element("li", NONE, each) for each in missing)) if missing else NOTHING
    return join((element("div", {"class": "charts"}, *drawn), listed))


def losses(material: Material) -> Markup:
    """Each loss over the steps."""
    if material.losses is None:
        return NOTHING
    steps, series = material.losses.steps, material.losses.series
    return element("div", {"class": "charts"}, *(loss_curve(name, steps, values) for name, values in series.items()))


def importance(material: Material) -> Markup:
    """What clips lose without each block, and which of them the student lacks."""
    if not material.blocks:
        return NOTHING
    note = "Each block of the teacher taken out by itself. Hatched: the student lacks it; x: nothing can stand for it."
    drawn = element("div", scrolled("Importance of blocks"), importance_chart(material.blocks))
    return join((element("p", {"class": "note"}, note), drawn))


def environment(material: Material) -> Markup:
    """Hardware, software and code."""
    fingerprint = material.settings("fingerprint")
    found = dict(flattened(fingerprint if isinstance(fingerprint, dict) else {}))
    if not found and material.rows:
        row = material.rows[0]
        found = {"machine_id": row.machine_id, "gpu": row.gpu, "torch": row.torch, "commit": row.commit}
    warnings = material.settings("warnings")
    parts = [data_table("Measured on", ["what", "value"], [list(item) for item in found.items()])]
    if isinstance(warnings, list) and warnings:
        parts.append(element("ul", {"class": "note"}, *(element("li", NONE, str(each)) for each in warnings)))
    return join(parts)


def protocol(material: Material) -> Markup:
    """All settings of the suite as they were resolved."""
    found = {record.score.protocol for record in material.records}
    names = element("p", NONE, "Protocols: ", element("code", NONE, ", ".join(sorted(found))))
    settings = material.settings("suite")
    if not isinstance(settings, dict):
        return names
    table = data_table("Settings", ["setting", "value"], [list(item) for item in flattened(settings)])
    return join((names, element("details", NONE, element("summary", NONE, "Every setting of the suite"), table)))


def commands(material: Material) -> Markup:
    """What to type to get these numbers again."""
    lines = []
    commit, versions = material.settings("fingerprint", "commit"), material.settings("fingerprint", "versions")
    if isinstance(commit, str) and commit not in ("", "unknown"):
        dirty = "  # and what was changed since" if material.settings("fingerprint", "dirty") else ""
        lines.append(f"git checkout {shlex.quote(commit)}{dirty}")
    if isinstance(versions, dict):
        wanted = [f"{name}=={value}" for name, value in versions.items() if name != "vdmini" and value != "missing"]
        lines.append(f"pip install {shlex.join(wanted)} -e .")
    argv = material.settings("argv")
    if isinstance(argv, list) and len(argv) > 1 and Path(str(argv[0])).name in ("vdmini-bench", "__main__.py"):
        lines.append(shlex.join(["vdmini-bench", *map(str, argv[1:])]))
    lines.append(f"vdmini-bench compare teacher student --run {shlex.quote(material.name)}")
    lines.append(f"vdmini-bench report {shlex.quote(material.name)}")
    return element("pre", {"tabindex": 0}, element("code", NONE, "\n".join(lines)))


def data_table(caption: str, header: Sequence[str], lines: Iterable[Sequence[str]]) -> Markup:
    """A table that scrolls by itself where the page is narrower."""
    head = element("tr", NONE, *(element("th", {"scope": "col"}, name) for name in header))
    body = [
        element("tr", NONE, element("th", {"scope": "row"}, line[0]), *(element("td", NONE, cell) for cell in line[1:]))
        for line in lines
    ]
    parts = (element("caption", NONE, caption), element("thead", NONE, head), element("tbody", NONE, *body))
    return element("div", scrolled(caption), element("table", NONE, *parts))


def scrolled(name: str) -> dict[str, str | int]:
    """The attributes of a part that scrolls sideways, by keys too."""
    return {"class": "scrolled", "tabindex": 0, "role": "region", "aria-label": name}


def flattened(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Nested settings as `key.path` and text, lists on one line."""
    for key, value in settings.items():
        if isinstance(value, dict):
            yield from flattened(value, f"{prefix}{key}.")
        elif isinstance(value, list):
            yield f"{prefix}{key}", ", ".join(map(str, value))
        else:
            yield f"{prefix}{key}", str(value)


def _side(material: Material, model: str) -> ResultSet:
    return ResultSet(model, material.name, tuple(each for each in material.records if each.score.model == model))


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


def _params(material: Material, model: str) -> float | None:
    counted = (
        row.params_m or (row.value if row.metric == "params_m" else "") for row in material.rows if row.model == model
    )
    return next((float(cell) for cell in counted if cell), None)
