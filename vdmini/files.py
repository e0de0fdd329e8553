"""Files that appear whole or not at all, whenever their writing is broken off."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A place to write a file at, with its suffix and in its folder, which is made; at the end it becomes `path`.

    What an exception leaves there is removed; what a kill leaves is hidden, and the next attempt writes over it. For
    one writer at a time.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".partial-{path.name}")
    try:
        yield partial
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
