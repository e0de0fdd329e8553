"""The options of commands that print a table: `--format`, and `--json`, `--markdown`, `--csv` for short."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar, get_args

import click

from vdmini_bench.system.tables import Format

R = TypeVar("R")
SHORT = {
    "csv": "Print CSV.",
    "markdown": "Print a markdown table.",
    "json": "Print one JSON object instead of a table.",
}


def with_format(command: Callable[..., R]) -> Callable[..., R]:
    """The options; the command gets the format chosen as `form`, which is `table` without any."""

    @wraps(command)
    def with_one_argument(**given: Any) -> R:
        flags = [name for name in reversed(SHORT) if given.pop(f"as_{name}")]
        named = given.pop("form")
        if len(flags) + (named is not None) > 1:
            words = [*(f"--{name}" for name in flags), *([f"--format {named}"] if named else [])]
            raise click.UsageError(f"give one of {', '.join(words)}")
        form = flags[0] if flags else named or "table"
        if form == "parquet" and sys.stdout.isatty():
            raise click.UsageError("parquet is no text: redirect it to a file, as in --format parquet > table.parquet")
        return command(form=form, **given)

    for name, meaning in SHORT.items():
        with_one_argument = click.option(f"--{name}", f"as_{name}", is_flag=True, help=meaning)(with_one_argument)
    choice = click.Choice(get_args(Format))
    return click.option("--format", "form", type=choice, help="How the table is printed.")(with_one_argument)
