"""Wide views of measurements: the speed-quality table on the terminal, in markdown and as text."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from vdmini_bench.measurement import Row
from vdmini_bench.progress import readable

if TYPE_CHECKING:
    from rich.text import Text

COLUMNS = (
    ("params_m", "params (M)"),
    ("denoiser_gflops", "GFLOP"),
    ("latency_denoiser", "denoiser (ms)"),
    ("latency_end_to_end", "clip (ms)"),
    ("speedup_denoiser", "denoiser speed-up"),
    ("speedup_end_to_end", "clip speed-up"),
    ("peak_memory_denoiser", "peak (MiB)"),
    ("fvd", "FVD"),
    ("flow_distance", "flow distance (px)"),
    ("inception_score_i3d", "IS (I3D stand-in)"),
)
TITLES = dict(COLUMNS)
ORDER = ("real", "static", "teacher", "pruned", "student")
# Metrics of VBench's dimensions, and of those of the same meaning in the drawn world.
DIMENSION, DRAWN = "vbench_", "embedded-"
# Cells of up to so many characters, all numbers among them, are never wrapped.
WRAPPED = 24
GROUPS = {"vbench_quality": "Quality", "vbench_semantic": "Semantic", "vbench_i2v": "I2V", "vbench_total": "Total"}


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
    models = sorted({row.model for row in rows}, key=_place)
    by_place = {(row.metric, row.model): row for row in rows}
    metrics = [*dict.fromkeys(row.metric for row in rows)]
    measured = {row.metric for row in rows if row.status != "unavailable"}
    scored = [name for name in metrics if name.startswith((DIMENSION, DRAWN)) and name not in GROUPS]
    # What sizes and times say is said of the whole suite, and stands below the table.
    common = next((row.note for row in rows if row.metric in TITLES), "")
    params = {row.model: _short(float(row.params_m)) for row in rows if row.params_m}
    lines = [[TITLES["params_m"], *(params.get(model, "-") for model in models), ""]] if params else []
    order = [
        *(name for name in TITLES if name in metrics and name != "params_m"),
        *(name for name in scored if name in measured),
        *(name for name in GROUPS if name in metrics),
        *(name for name in scored if name not in measured),
    ]
    for metric in order:
        shown = _short if metric in TITLES else _share
        cells = [_cell(by_place.get((metric, model)), shown) for model in models]
        note = next(row.note for row in rows if row.metric == metric).removeprefix(common).removeprefix("; ")
        title = TITLES.get(metric) or GROUPS.get(metric) or metric.removeprefix(DIMENSION)
        lines.append([title, *cells, note])
    return ["metric", *models, "what it is, or why it is missing"], lines


def model_table(rows: Iterable[Row]) -> tuple[list[str], list[list[str]]]:
    """The header and one line a model."""
    by_place: dict[tuple[str, str], Row] = {}
    status: dict[str, set[str]] = {}
    params: dict[str, str] = {}
    for row in rows:
        by_place[row.model, row.metric] = row
        if row.params_m:
            params[row.model] = _short(float(row.params_m))
        status.setdefault(row.model, set()).add(row.status)
    header = ["model", *(title for _, title in COLUMNS), "status"]
    lines = []
    for model in sorted(status, key=_place):
        cells = [_cell(by_place.get((model, metric)), _short) for metric, _ in COLUMNS]
        cells[0] = params.get(model, "-")
        lines.append([model, *cells, "ok" if status[model] == {"ok"} else ", ".join(sorted(status[model] - {"ok"}))])
    return header, lines


def _place(model: str) -> int:
    return ORDER.index(model) if model in ORDER else len(ORDER)


def markdown_table(header: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A GitHub markdown table; numbers to the right."""
    rule = ["---", *("---:" for _ in header[1:])]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (header, rule, *lines))


def print_table(title: str, header: Sequence[str], lines: Iterable[Sequence[str]]) -> None:
    """Print a table to standard output, as wide as it needs to be; in a narrower terminal long cells wrap.

    Where that is not enough, what all lines share is said once, and then each cell has a line of its own. None is cut.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    # As they will be shown: columns stay straight where the console lacks a character.
    columns = [[Text(readable(cell)) for cell in column] for column in zip(header, *lines, strict=True)]
    console = Console()
    # A program that sets colours without a terminal has no terminal's width.
    room = console.width if sys.stdout.isatty() else sys.maxsize
    console.print(Text(readable(title), "table.title"), soft_wrap=True)
    widths = _widths(columns, room)
    if widths is None and len(columns[0]) > 2:
        shared = [column for column in columns[1:] if all(cell == column[1] for cell in column[1:])]
        if told := "; ".join(f"{name}: {cell}" for name, cell, *_ in shared if cell):
            console.print(Text(told), soft_wrap=True)
        columns = [column for column in columns if column not in shared]
        widths = _widths(columns, room)
    names, *rows = zip(*columns, strict=True)
    if widths is None:
        for row in rows:
            cells = [f"{name}: {cell}" for name, cell in zip(names, row, strict=True) if cell]
            console.print(Text("\n  ".join(cells)), soft_wrap=True)
        return
    table = Table()
    for position, (name, width) in enumerate(zip(names, widths, strict=True)):
        table.add_column(name, justify="right" if position else "left", width=width, overflow="fold")
    for row in rows:
        table.add_row(*row)
    Console(width=max(console.width, _total(widths))).print(table)


def _widths(columns: Sequence[Sequence[Text]], room: int) -> list[int] | None:
    """The columns' widths within `room` characters, as near as can be to what each needs; None where they cannot be."""
    from rich.cells import cell_len

    whole = [max(cell.cell_len for cell in column) for column in columns]
    longest_words = [max(map(cell_len, name.plain.split()), default=0) for name, *_ in columns]
    widths = [max(word, min(WRAPPED, width)) for word, width in zip(longest_words, whole, strict=True)]
    if _total(widths) > room:
        return None
    while _total(widths) < min(room, _total(whole)):
        for column in [column for column, width in enumerate(widths) if width < whole[column]][: room - _total(widths)]:
            widths[column] += 1
    return widths


def _total(widths: Sequence[int]) -> int:
    """The characters that columns and the lines around them take."""
    return sum(widths) + 3 * len(widths) + 1


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
