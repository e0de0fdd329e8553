"""Whether results can be written where the user wants them, asked before anything is computed."""

from __future__ import annotations

import tempfile
from pathlib import Path

from vdmini_bench.errors import SuiteError


def require_writable(folder: Path) -> None:
    """Make a folder where it is not there, and write a file into it that goes at once.

    Raises:
        SuiteError: one of the two fails.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise SuiteError(
            f"nothing can be written in {folder} ({error.strerror}): give another place with -o"
        ) from error


def require_writable_file(file: Path) -> None:
    """The same for the folder of a file that is to be written.

    Raises:
        SuiteError: that fails, or the file's name is that of a folder.
    """
    require_writable(file.parent)
    if file.is_dir():
        raise SuiteError(f"{file} is a folder: give the file's own name with -o")
