"""The options of commands that print a table: `--json`, `--markdown`, `--csv`."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar, get_args

import click

from vdmini_bench.system.tables import Format

R = TypeVar("R")
HELP = {
    "json": "Print one JSON object instead of a table.",
    "markdown": "Print a markdown table.",
    "csv": "Print CSV.",
}


def with_format(*choices: Format) -> Callable[[Callable[..., R]], Callable[..., R]]:
    """A flag for each of these formats; the command gets the one chosen as `form`, which is `table` without a flag."""
    assert {*choices} <= {*get_args(Format)}

    def decorate(command: Callable[..., R]) -> Callable[..., R]:
        @wraps(command)
        def with_one_argument(**given: Any) -> R:
            chosen = [choice for choice in choices if given.pop(f"as_{choice}")]
            if len(chosen) > 1:
                raise click.UsageError(f"give one of {', '.join(f'--{choice}' for choice in chosen)}")
            return command(form=chosen[0] if chosen else "table", **given)

        for choice in reversed(choices):
            with_one_argument = click.option(f"--{choice}", f"as_{choice}", is_flag=True, help=HELP[choice])(
                with_one_argument
            )
        return with_one_argument

    return decorate
