"""Wide views of measurements: the speed-quality table on the terminal, in markdown and as text."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from vdmini_bench.results.score import NO_MODELS, OF_PACKAGE, Row, Score

TITLES = {
    "params_m": "params (M)",
    "denoiser_gflops": "GFLOP",
    "decoder_gflops": "decoder GFLOP",
    "latency_denoiser": "denoiser (ms)",
    "latency_end_to_end": "end-to-end (ms)",
    "speedup_denoiser": "denoiser speed-up",
    "speedup_end_to_end": "end-to-end speed-up",
    "peak_memory_denoiser": "peak (MiB)",
    "fvd": "FVD",
    "flow_distance": "flow distance (px)",
    "inception_score_i3d": "IS (I3D stand-in)",
    "psnr": "PSNR (dB)",
    "ssim": "SSIM",
    "content_distance": "content distance",
    "motion_distance": "motion distance (px)",
    "preference": "preferred (log odds)",
}
# Metrics of VBench's dimensions, and of those of the same meaning in the drawn world.
DIMENSION, DRAWN = "vbench_", "embedded-"
GROUPS = {
    "vbench_quality": "Quality", "vbench_semantic": "Semantic", "vbench_i2v": "I2V", "vbench_total": "Total",
    "vbench_mean": "Mean", "vbench_passes": "Passes",
}  # fmt: skip


def wide_table(rows: Iterable[Row]) -> tuple[list[str], list[list[str]]]:
    """The header and one line a model, or one a dimension where there are scores in VBench's dimensions.

    Values have their standard errors; `-` stands where nothing belongs or was measured.
    """
    listed = list(rows)
    if any(row.metric.startswith((DIMENSION, DRAWN)) for row in listed):
        return dimension_table(listed)
    return model_table(listed)


def dimension_table(rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    """The header and one line a metric, a column a model: what was measured, then totals, then what was not."""
    models, by_name, params = in_order(row.model for row in rows), _by_name(rows), _params(rows)
    metrics = dict.fromkeys(row.metric for row in rows)
    measured = {row.metric for row in rows if row.status != "unavailable"}
    scored = [name for name in metrics if name.startswith((DIMENSION, DRAWN)) and name not in GROUPS]
    # What sizes and times say is said of the whole suite, and stands below the table.
    common = next((row.note for row in rows if row.metric in TITLES), "")
    lines = [[TITLES["params_m"], *(params.get(model, "-") for model in models), ""]] if params else []
    order = [
        *(name for name in TITLES if name in metrics and name != "params_m"),
        *(name for name in scored if name in measured),
        *(name for name in GROUPS if name in metrics),
        *(name for name in scored if name not in measured),
    ]
    for metric in order:
        shown = _short if metric in TITLES else _share
        note = next(row.note for row in rows if row.metric == metric).removeprefix(common).removeprefix("; ")
        title = TITLES.get(metric) or GROUPS.get(metric) or metric.removeprefix(DIMENSION)
        lines.append([title, *(_cell(by_name.get((model, metric)), shown) for model in models), note])
    return ["metric", *models, "what it is, or why it is missing"], lines


def model_table(rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    """The header and one line a model; a metric of which no model has a row has no column."""
    by_name, params = _by_name(rows), _params(rows)
    titles = TITLES | titles_of_packages(rows)
    metrics = [metric for metric in titles if metric != "params_m" and any(row.metric == metric for row in rows)]
    lines = []
    for model in in_order(row.model for row in rows):
        cells = [_cell(by_name.get((model, metric)), _short) for metric in metrics]
        lacking = sorted({row.status for row in rows if row.model == model} - {"ok"})
        lines.append([model, params.get(model, "-"), *cells, ", ".join(lacking) or "ok"])
    return ["model", TITLES["params_m"], *(titles[metric] for metric in metrics), "status"], lines


def titles_of_packages(rows: Iterable[Row | Score]) -> dict[str, str]:
    """The titles of metrics that other packages have brought, as they come."""
    theirs = {row.metric: row.unit for row in rows if OF_PACKAGE in row.metric_version}
    return {metric: f"{metric} ({unit})" if unit else metric for metric, unit in theirs.items()}


def _by_name(rows: Iterable[Row]) -> dict[tuple[str, str], Row]:
    return {(row.model, row.metric): row for row in rows}


def _params(rows: Iterable[Row]) -> dict[str, str]:
    return {row.model: _short(float(row.params_m)) for row in rows if row.params_m}


def in_order(models: Iterable[str]) -> list[str]:
    """Rows' names, each once, as tables have them: those that no model made, then models as they come."""
    found = dict.fromkeys(models)
    return [*(name for name in NO_MODELS if name in found), *(name for name in found if name not in NO_MODELS)]


def _cell(row: Row | None, shown: Callable[[float], str]) -> str:
    if row is None:
        return "-"
    if row.status != "ok":
        return row.status
    value = shown(float(row.value))
    return f"{value} ± {shown(float(row.se))}" if row.se else value


def _share(value: float) -> str:
    """A score from 0 to 1, whose differences are small."""
    return f"{value:.3f}"


def _short(value: float) -> str:
    if abs(value) >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if abs(value) >= 20 else f"{value:.2f}"
