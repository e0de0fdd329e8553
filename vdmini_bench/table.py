"""Wide views of measurements: the speed-quality table on the terminal, in markdown and as text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from vdmini_bench.measurement import Row

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
ORDER = ("real", "static", "teacher", "pruned", "student")


def wide_table(rows: Iterable[Row]) -> tuple[list[str], list[list[str]]]:
    """The header and one line a model: values with their standard errors, `-` where nothing belongs or was measured."""
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
    for model in sorted(status, key=lambda name: ORDER.index(name) if name in ORDER else len(ORDER)):
        cells = [_cell(by_place.get((model, metric))) for metric, _ in COLUMNS]
        cells[0] = params.get(model, "-")
        lines.append([model, *cells, "ok" if status[model] == {"ok"} else ", ".join(sorted(status[model] - {"ok"}))])
    return header, lines


def markdown_table(header: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A GitHub markdown table; numbers to the right."""
    rule = ["---", *("---:" for _ in header[1:])]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (header, rule, *lines))


def print_table(title: str, header: Sequence[str], lines: Iterable[Sequence[str]]) -> None:
    """Print a table to standard output, as wide as it needs to be when that is no terminal."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console()
    if not console.is_terminal:
        console = Console(width=240)
    table = Table(title=escape(title), title_justify="left")
    for position, name in enumerate(header):
        table.add_column(escape(name), justify="right" if position else "left")
    for line in lines:
        table.add_row(*map(escape, line))
    console.print(table)


def _cell(row: Row | None) -> str:
    if row is None:
        return "-"
    if row.status != "ok":
        return row.status
    value = _short(float(row.value))
    return f"{value} ± {_short(float(row.se))}" if row.se else value


def _short(value: float) -> str:
    if abs(value) >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if abs(value) >= 20 else f"{value:.2f}"
