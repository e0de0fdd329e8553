"""A table as people and programs want it: on the terminal, and in the formats of texts and of files."""

from __future__ import annotations

import csv
import io
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from vdmini.model_card import markdown_text
from vdmini_bench.system.progress import readable

if TYPE_CHECKING:
    from rich.text import Text

Format = Literal["table", "json", "csv", "markdown", "latex", "html", "parquet"]
# Cells of up to so many characters, all numbers among them, are never wrapped.
WRAPPED = 24
LINE_BREAKS = re.compile(r"[\r\n\0]+")
# Spreadsheets run a cell that starts with one of these as a formula.
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n")
# Parsers replace or refuse control characters, a lone surrogate cannot be written as UTF-8, and marks of direction
# would turn a page's own words round.
_CONTROL = (*range(9), 11, 12, *range(14, 32), *range(127, 160))
_DIRECTION = (*range(0x202A, 0x202F), *range(0x2066, 0x206A))
INVISIBLE = dict.fromkeys((*_CONTROL, *range(0xD800, 0xE000), *_DIRECTION), "\ufffd")


def csv_lines(lines: Iterable[Iterable[object]]) -> str:
    """CSV with LF: None is empty, and no text in a cell is one that a spreadsheet would run."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerows([plain_cell(cell) if isinstance(cell, str) else cell for cell in line] for line in lines)
    return buffer.getvalue()


def markdown_table(header: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A GitHub markdown table, numbers to the right; no pipe, line break or HTML of a cell takes effect."""
    rule = ["---", *("---:" for _ in header[1:])]
    first, *others = (list(map(markdown_text, cells)) for cells in (header, *lines))
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (first, rule, *others))


def show_table(
    form: Format,
    title: str,
    header: Sequence[str],
    lines: Sequence[Sequence[str]],
    records: Sequence[Mapping[str, Any]] = (),
) -> None:
    """Print a table to standard output: for parquet its records, numbers as such; `json` is the caller's own."""
    import click

    if form == "table":
        print_table(title, header, lines)
    elif form == "csv":
        click.echo(csv_lines([header, *lines]), nl=False)
    elif form == "markdown":
        click.echo(markdown_table(header, lines))
    elif form == "parquet":
        from pandas import DataFrame

        click.echo(DataFrame(records).to_parquet(index=False), nl=False)
    else:
        click.echo(_escaped(form, header, lines), nl=False)


def _escaped(form: Format, header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """LaTeX or HTML, in which a cell stays a cell."""
    import pandas as pd

    frame = pd.DataFrame([[visible(cell) for cell in line] for line in lines], columns=[*map(visible, header)])
    if form == "latex":
        return frame.to_latex(index=False, escape=True)
    with pd.option_context("display.max_colwidth", None):
        return frame.to_html(index=False, escape=True) + "\n"


def visible(text: str) -> str:
    """A text without what parsers of pages refuse or what would turn the words round it; its length stays."""
    return text.translate(INVISIBLE)


def number_cell(value: float | None, digits: int = 5) -> str:
    """A number in as many significant digits, `-` for None."""
    return "-" if value is None else f"{value:.{digits}g}"


def interval_cell(interval: tuple[float, float] | None) -> str:
    """Two ends of an interval, `-` for None."""
    return "-" if interval is None else f"{interval[0]:.4g} to {interval[1]:.4g}"


def plain_cell(cell: str) -> str:
    """A cell on one line that no spreadsheet runs as a formula."""
    # A line of the file is a row: merges across branches and `grep` both count on it.
    cell = LINE_BREAKS.sub(" ", cell).encode(errors="replace").decode()
    return f"'{cell}" if _is_formula(cell) else cell


def _is_formula(cell: str) -> bool:
    # Some programs skip what looks empty before it, what a line break has become here too.
    if not cell.startswith(FORMULA_STARTS) and not cell.lstrip().startswith(FORMULA_STARTS):
        return False
    try:
        # A number, or several.
        return not [*map(float, cell.split())]
    except ValueError:
        return True


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
