"""A table as people and programs want it: on the terminal, as markdown, as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Literal

Format = Literal["table", "json", "markdown", "csv"]


def csv_table(header: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """CSV with a header, LF and no cell that a spreadsheet would run."""
    from vdmini_bench.leaderboard import plain_cell

    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerows([plain_cell(cell) for cell in line] for line in (header, *lines))
    return buffer.getvalue()


def safe_markdown_table(header: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A GitHub markdown table in which a cell stays a cell: no pipe, line break or HTML of it takes effect."""
    from vdmini_bench.table import markdown_table

    return markdown_table(list(map(markdown_text, header)), [list(map(markdown_text, line)) for line in lines])


def markdown_text(text: str) -> str:
    """A text that markdown shows as it is, on one line."""
    text = " ".join(text.split())
    for special in ("\\", "|", "`", "*", "[", "]", "@"):
        # A backslash does not keep GitHub from notifying the person that @name means.
        text = text.replace(special, f"\\{special}" if special != "@" else "@\u200b")
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def show_table(form: Format, title: str, header: Sequence[str], lines: Sequence[Sequence[str]]) -> None:
    """Print a table to standard output; `json` is the caller's own."""
    import click

    from vdmini_bench.table import print_table

    if form == "markdown":
        click.echo(safe_markdown_table(header, lines))
    elif form == "csv":
        click.echo(csv_table(header, lines), nl=False)
    else:
        print_table(title, header, lines)


def number_cell(value: float | None, digits: int = 5) -> str:
    """A number in as many significant digits, `-` for None."""
    return "-" if value is None else f"{value:.{digits}g}"


def interval_cell(interval: tuple[float, float] | None) -> str:
    """Two ends of an interval, `-` for None."""
    return "-" if interval is None else f"{interval[0]:.4g} to {interval[1]:.4g}"
