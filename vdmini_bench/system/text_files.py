"""Text files that people write: how they are decoded, and what ends a line of them, wherever one is read."""

from __future__ import annotations

import codecs
import csv
import io
from pathlib import Path

from vdmini_bench.errors import SuiteError

MARK = "\ufeff"
SEPARATORS = {";": "semicolons", "\t": "tabs"}


def read_text(path: Path) -> str:
    r"""A text file in UTF-8, without byte order marks, its lines ended by "\n" alone.

    Nothing else ends a line: U+2028, U+0085, form feeds and lone carriage returns stay where they are, so split it by
    "\n" and not with `str.splitlines`.

    Raises:
        SuiteError: it cannot be read, or is of another encoding, with file:line.
    """
    try:
        content = path.read_bytes()
    except (OSError, ValueError) as error:
        raise SuiteError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from error
    return decode_text(content, str(path))


def decode_text(content: bytes, place: str) -> str:
    """The same of a file's bytes; `place` is what an error calls it."""
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise SuiteError(f"{place}: cannot be read (UTF-16, which some editors call Unicode): save it as UTF-8")
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise SuiteError(f"{place}:{line}: not UTF-8 ({error.reason}): save it as UTF-8") from error
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        raise SuiteError(f"{place}:{line}: a null character, which no text has: save it as UTF-8 text")
    # Files that were joined have a mark within.
    return text.removeprefix(MARK).replace("\r\n", "\n").replace(f"\n{MARK}", "\n")


def read_csv(path: Path) -> list[tuple[int, list[str]]]:
    """The records of a CSV file that are not blank, each with the line it starts on.

    Raises:
        SuiteError: as `read_text`; or it is no CSV, with file:line, or separates its fields by something else.
    """
    # To the csv module a lone carriage return ends a line, as old spreadsheets have it.
    reader = csv.reader(io.StringIO(read_text(path), newline=""), strict=True)
    records: list[tuple[int, list[str]]] = []
    while True:
        line = reader.line_num + 1
        try:
            fields = next(reader)
        except StopIteration:
            return records
        except csv.Error as error:
            raise SuiteError(f"{path}:{line}: {error}: quote fields with commas or quotes in them") from error
        if not any(field.strip() for field in fields):
            continue
        if not records and len(fields) == 1:
            found = [word for separator, word in SEPARATORS.items() if separator in fields[0]]
            if found:
                raise SuiteError(f"{path}:{line}: {found[0]} between the fields: save the file with commas")
        records.append((line, fields))
