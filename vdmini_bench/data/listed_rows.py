"""Rows of the files in which people list things: CSV, JSON lines or Parquet, whatever their columns are called."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vdmini_bench.errors import SuiteError
from vdmini_bench.system.text_files import read_csv, read_text

# What each column that is read says, with the names that it may have.
Columns = Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class ListedRow:
    """One row: its place, `file:line` or the row's number where a file has no lines, and what its columns say.

    A value that a line of JSON leaves out is None.
    """

    place: str
    values: Mapping[str, object]

    def text(self, column: str) -> str:
        """What a column says, without white space around it; empty where it says nothing.

        Raises:
            SuiteError: it is no text, with the place.
        """
        value = self.values[column]
        if value is None or (isinstance(value, str) and not value.strip()):
            return ""
        # A lone half of a surrogate pair, which JSON can spell, is no text: no tokenizer takes it.
        if not isinstance(value, str) or any("\ud800" <= sign <= "\udfff" for sign in value):
            raise SuiteError(f"{self.place}: the {column} is {value!r}: write a text")
        return value.strip()


def read_rows(path: Path, columns: Columns) -> list[ListedRow]:
    """The rows of a file with the suffix of one of `READERS`; other columns are left alone.

    On a line of JSON all but the first of `columns` may be missing.

    Raises:
        SuiteError: the file cannot be read, is of another kind, or rows of it (with file:line) are malformed; or a
            column is missing, or there under several names.
    """
    if path.suffix not in READERS:
        raise SuiteError(f"{path}: lists are read from {', '.join(READERS)}: convert the file to one of them")
    try:
        return list(READERS[path.suffix](path, columns))
    except OSError as error:
        raise SuiteError(f"{path} cannot be read: {error}") from error


def _read_csv(path: Path, columns: Columns) -> Iterator[ListedRow]:
    (header_line, header), *records = read_csv(path) or [(1, [])]
    names = [name.strip() for name in header]
    wanted = _names(f"{path}:{header_line}", names, columns)
    for line, fields in records:
        if len(fields) != len(names):
            raise SuiteError(
                f"{path}:{line}: {len(fields)} fields where the header has {len(names)}: quote fields with commas in"
                " them"
            )
        yield ListedRow(f"{path}:{line}", {column: fields[names.index(name)] for column, name in wanted.items()})


def _read_jsonl(path: Path, columns: Columns) -> Iterator[ListedRow]:
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        place = f"{path}:{number}"
        try:
            pairs = json.loads(line, object_pairs_hook=_Pairs)
        except (ValueError, RecursionError) as error:
            raise SuiteError(f"{place}: no JSON ({error}): write an object on each line") from error
        if not isinstance(pairs, _Pairs):
            example = ", ".join(f'"{column}": ...' for column in columns)
            raise SuiteError(f"{place}: no object: write {{{example}}}")
        # Of a single line, unlike a header, a column that is missing says nothing of the others.
        absent = [aliases[0] for aliases in [*columns.values()][1:] if not {*aliases} & {name for name, _ in pairs}]
        wanted = _names(place, [*(name for name, _ in pairs), *absent], columns)
        yield ListedRow(place, {column: dict(pairs).get(name) for column, name in wanted.items()})


class _Pairs(list[tuple[str, object]]):
    """A JSON object with the names that it repeats."""


def _read_parquet(path: Path, columns: Columns) -> Iterator[ListedRow]:
    import pyarrow
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path) as opened:
            wanted = _names(str(path), opened.schema_arrow.names, columns)
            table = opened.read(columns=[*wanted.values()])
    except (pyarrow.ArrowException, UnicodeDecodeError) as error:
        raise SuiteError(f"{path} is no Parquet file that can be read: {error}") from error
    for number, values in enumerate(zip(*(table[name] for name in wanted.values()), strict=True), start=1):
        place = f"{path}, row {number}"
        try:
            yield ListedRow(place, {column: value.as_py() for column, value in zip(wanted, values, strict=True)})
        except UnicodeDecodeError as error:
            raise SuiteError(f"{place}: not UTF-8 ({error.reason}): write the file again as UTF-8") from error


READERS: Mapping[str, Callable[[Path, Columns], Iterator[ListedRow]]] = {
    ".csv": _read_csv,
    ".jsonl": _read_jsonl,
    ".parquet": _read_parquet,
}


def _names(place: str, found: Sequence[str], columns: Columns) -> dict[str, str]:
    """The name that each column has here."""
    names = {}
    for column, aliases in columns.items():
        present = [name for name in found if name in aliases]
        if len(present) != 1:
            several = f"columns {' and '.join(present)} all say the {column}"
            problem = several if present else f"no column for the {column}"
            there = ", ".join(map(repr, found)) or "none"
            raise SuiteError(f"{place}: {problem} (the columns there: {there}): have one of {', '.join(aliases)}")
        names[column] = present[0]
    return names
