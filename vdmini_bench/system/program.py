"""How our programs end: with an exit code of ours and one line, whatever happens to them or around them."""

from __future__ import annotations

import errno
import os
import sys
import tempfile
import traceback
from collections.abc import Callable, Mapping
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import click

from vdmini.errors import ModelLoadError, PlanError
from vdmini.finite import NotFiniteError
from vdmini_bench.errors import BenchError, ExitCode
from vdmini_bench.system.progress import write_readable

DISK_FAILURES = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EFBIG)
P = ParamSpec("P")
R = TypeVar("R")


class OutputClosedError(Exception):
    """What reads our output has ended before all of it was written."""


class Program(click.Group):
    """A command line that never ends with 1 but where `gate` says so: that means a regression."""

    def __init__(self, *args: Any, sections: Mapping[str, Mapping[str, str]] | None = None, **extra: Any) -> None:
        super().__init__(*args, **extra)
        self.sections = sections

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands by what a user wants, a line each; as click does where nothing says so."""
        if self.sections is None:
            super().format_commands(ctx, formatter)
            return
        for title, lines in self.sections.items():
            with formatter.section(title):
                formatter.write_dl([*lines.items()])

    def main(self, *args: Any, **extra: Any) -> Any:
        """Run a command and end the process with its exit code."""
        write_readable()
        try:
            # Not standalone: what click does not expect itself, it would end with 1.
            code = expected_failures(super().main)(*args, **{**extra, "standalone_mode": False})
        except SystemExit as end:
            # Ours end with codes of ours; what a library says may be anything.
            code = end.code if isinstance(end.code, ExitCode) or not end.code else ExitCode.FAILED
            if isinstance(end.code, str):
                click.echo(end.code, err=True)
        except click.ClickException as error:
            error.show()
            code = ExitCode.USAGE
        except (click.Abort, KeyboardInterrupt):
            click.echo("interrupted; the same command continues where it stopped", err=True)
            code = ExitCode.INTERRUPTED
        except OutputClosedError:
            # Python writes what is left when it ends.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            click.echo("error: what reads the output ended before all of it was written", err=True)
            code = ExitCode.FAILED
        except Exception as error:  # a mistake of ours, or of the machine
            click.echo(f"error: {_unexpected(error)}", err=True)
            code = ExitCode.FAILED
        sys.exit(code)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; a closed output is told apart from where click would end the process with 1."""
        try:
            return expected_failures(super().invoke)(ctx)
        except BrokenPipeError as error:
            raise OutputClosedError from error


def _unexpected(error: Exception) -> str:
    """What to tell of an error that nothing here expects, whose traceback is kept."""
    told = " ".join(str(error).split())[:300]
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
    whole = "".join(traceback.format_exception(error))
    try:
        with tempfile.NamedTemporaryFile(
            "w", prefix="vdmini-bench-", suffix=".log", delete=False, encoding="utf-8", errors="backslashreplace"
        ) as log:
            log.write(whole)
    except OSError:
        return f"unexpected {type(error).__name__}: {told}{where}; its traceback:\n{whole}"
    return (
        f"unexpected {type(error).__name__}: {told}{where}; finished work is kept, and the same command continues;"
        f" if it comes again, report it with {log.name}, which holds the traceback"
    )


def expected_failures(command: Callable[P, R]) -> Callable[P, R]:
    """Turn expected errors into one message and their exit code; an interrupt says how to go on."""

    @wraps(command)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except (BenchError, ModelLoadError, NotFiniteError, PlanError) as error:
            click.echo(f"error: {error}", err=True)
            code = ExitCode.USAGE if isinstance(error, ModelLoadError | PlanError) else ExitCode.FAILED
            sys.exit(getattr(error, "exit_code", code))
        except OSError as error:
            # What else cannot be read or written is a mistake of ours, which needs its traceback.
            if error.errno not in DISK_FAILURES:
                raise
            click.echo(f"error: {error}: free some of the disk or mend it; the same command continues", err=True)
            sys.exit(ExitCode.FAILED)
        except KeyboardInterrupt:
            click.echo("interrupted; the same command continues where it stopped", err=True)
            sys.exit(ExitCode.INTERRUPTED)

    return wrapper
