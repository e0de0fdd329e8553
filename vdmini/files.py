"""Files that appear whole or not at all, whenever their writing is broken off."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# Bytes of a name that file systems allow, and those of one that leaves room for what is put around it.
LONGEST_NAME, SHORT_NAME = 255, 100


def short_name(name: str) -> str:
    """A name for a file that goes with another one: that of the other, where it is long its start and a hash."""
    whole = os.fsencode(name)
    if len(whole) <= SHORT_NAME:
        return name
    return f"{whole[: SHORT_NAME - 17].decode(errors='ignore')}~{hashlib.sha256(whole).hexdigest()[:16]}"


def is_file_name(name: str) -> bool:
    """Whether file systems take a file of this name."""
    try:
        return 0 < len(os.fsencode(name)) <= LONGEST_NAME and not {*name} & {"/", "\0"}
    except UnicodeEncodeError:
        return False


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A place to write a file at, with its suffix and in its folder, which is made; at the end it becomes `path`.

    What an exception leaves there is removed; what a kill leaves is hidden, and the next attempt writes over it. For
    one writer at a time.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".partial-{short_name(path.stem)}{path.suffix}")
    try:
        yield partial
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
