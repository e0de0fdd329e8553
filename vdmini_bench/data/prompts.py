"""Prompts that people wrote down: a text file, one a line, or a column of a CSV, JSON lines or Parquet file."""

from __future__ import annotations

from pathlib import Path

from vdmini_bench.data.listed_rows import READERS, read_rows
from vdmini_bench.errors import SuiteError
from vdmini_bench.system.text_files import read_text

COLUMNS = {"prompt": ("prompt", "prompt_en", "text", "caption")}
PROMPT_FILES = (".txt", *READERS)


def read_prompt_file(file: Path) -> list[str]:
    """The prompts of a file in their order, without white space around them; blank lines of a text file are left out.

    A list has them in its column `prompt` (or `prompt_en`, `text`, `caption`). Any other file is read as text.

    Raises:
        SuiteError: the file cannot be read or holds no prompt, or a row of it, named with file:line, has none.
    """
    if file.suffix not in READERS:
        prompts = [line.strip() for line in read_text(file).split("\n") if line.strip()]
    else:
        rows = read_rows(file, COLUMNS)
        prompts = [row.text("prompt") for row in rows]
        if "" in prompts:
            raise SuiteError(f"{rows[prompts.index('')].place}: no prompt: write one, or remove the row")
    if not prompts:
        raise SuiteError(f"{file} holds no prompt: write one a line")
    return prompts
