"""Exit codes and the errors that a user can expect to meet."""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from pathlib import Path

# How many of many names a message gives.
SHOWN = 5


class ExitCode(IntEnum):
    """What the process says when it ends."""

    OK = 0
    REGRESSION = 1
    USAGE = 2
    INCOMPLETE = 3
    FAILED = 4
    NOT_COMPARABLE = 5
    NO_DEVICE = 6
    NO_HUB = 7
    INTERRUPTED = 130


class BenchError(Exception):
    """An expected failure: its message says what was wrong and what to do next."""

    exit_code = ExitCode.FAILED

    @property
    def note(self) -> str:
        """What a row of the table says of it: one line."""
        return str(self).partition("\n")[0]


class SuiteError(BenchError):
    """A suite file, an override or an argument is wrong."""

    exit_code = ExitCode.USAGE


class MissingAssetsError(BenchError):
    """Weights or data that the run needs are not there."""

    exit_code = ExitCode.USAGE


class NotComparableError(BenchError):
    """Two results differ in protocol, sample count, version or machine."""

    exit_code = ExitCode.NOT_COMPARABLE


class NothingMeasuredError(BenchError):
    """There is no result to show."""

    exit_code = ExitCode.INCOMPLETE


class NoDeviceError(BenchError):
    """What was asked for needs a GPU, and there is none."""

    exit_code = ExitCode.NO_DEVICE


class HubError(BenchError):
    """The hub cannot be reached, or refused what was asked of it."""

    exit_code = ExitCode.NO_HUB


def few(names: Sequence[str]) -> str:
    """The first of some names, and how many more there are."""
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")


class AssetError(BenchError):
    """An asset that is missing, damaged or cannot be fetched; `command` is what to run next."""

    def __init__(self, name: str, reason: str, command: str) -> None:
        super().__init__(f"{name}: {reason}; next: `{command}`")
        self.name = name
        self.reason = reason
        self.command = command


class IncompleteError(BenchError):
    """Clips that could not be read; what needs them has no result, and every file is named."""

    exit_code = ExitCode.INCOMPLETE

    def __init__(self, problems: Sequence[UnreadableVideoError], job: str = "") -> None:
        listing = "\n".join(f"  {problem}" for problem in problems)
        where = f"{job}: " if job else ""
        super().__init__(f"{where}{len(problems)} unreadable clips; replace them and run again:\n{listing}")
        self.problems, self.job = problems, job

    def __reduce__(self) -> tuple[type[IncompleteError], tuple[Sequence[UnreadableVideoError], str]]:
        return IncompleteError, (self.problems, self.job)


class UnreadableVideoError(Exception):
    """A video file that is missing, empty, truncated or too short for the protocol."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason

    def __reduce__(self) -> tuple[type[UnreadableVideoError], tuple[Path, str]]:
        return UnreadableVideoError, (self.path, self.reason)
