"""Digests of files, and writing them whole."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from vdmini.files import short_name
from vdmini_bench.errors import BenchError, SuiteError

FREE_BYTES_NEEDED = 500 * 2**20


def sha256_of(path: Path) -> str:
    """Hash a file: the sha256 as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_writable(root: Path) -> None:
    """Fail now rather than after hours of work.

    Raises:
        BenchError: the folder cannot be made or written, or the disk is nearly full.
    """
    try:
        root.mkdir(parents=True, exist_ok=True)
        probe = root / ".write-probe"
        probe.write_text("")
        probe.unlink()
    except OSError as error:
        raise BenchError(f"{root} cannot be written ({error}); choose another folder with --results") from error
    free = shutil.disk_usage(root).free
    if free < FREE_BYTES_NEEDED:
        raise BenchError(f"{root}: {free / 2**20:.0f} MiB free where a run needs 500; free some or use --results")


def key_of(value: Any) -> str:
    """The content address of JSON-like data: 16 hex digits of the sha256 of its canonical form."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()[:16]


def write_atomically(path: Path, text: str) -> None:
    """Replace `path` by `text` in one step: a reader or a kill sees the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{short_name(path.name)}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def check_can_write(path: Path) -> None:
    """Fail now rather than after hours of work: `path`, a file or a folder that may not exist yet, can be made.

    Raises:
        BenchError: it cannot, or no disk space is left there.
    """
    place = next(each for each in (path, *path.absolute().parents) if each.exists())
    try:
        if place != path and not place.is_dir():
            raise NotADirectoryError(f"{place} is no folder")
        with tempfile.TemporaryFile(dir=place if place.is_dir() else place.parent) as probe:
            probe.write(b"x" * 4096)
    except OSError as error:
        raise BenchError(f"{path} cannot be written ({error}); choose another place with -o") from error


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
