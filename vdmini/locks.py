"""Locks between processes, on disks with locks of their own and on those without."""

from __future__ import annotations

import errno
import logging
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from vdmini.files import short_name

if TYPE_CHECKING:
    from filelock import BaseFileLock

# What disks say that have no locks: network disks mostly, or ones whose lock service is down.
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP)
_told: set[int] = set()


def file_lock(path: Path) -> BaseFileLock:
    """A lock by that name, whose folder is made; a process that is killed holds nothing.

    Where the disk has no locks, a file `.held` with the holder's process and machine stands for it, which a process of
    the same machine takes over from one that is gone.
    """
    from filelock import FileLock, SoftFileLock

    path.parent.mkdir(parents=True, exist_ok=True)
    name = short_name(path.name)
    if has_locks(path.parent):
        return FileLock(path.with_name(name))
    device = path.parent.stat().st_dev
    if device not in _told:
        _told.add(device)
        logging.getLogger(__name__).warning(
            "the disk of %s has no file locks: files named .held stand for them; delete those that a killed process of"
            " another machine left",
            path.parent.absolute(),
        )
    # Another name: the file of a lock stays when the lock is gone, on a disk that has them elsewhere.
    return SoftFileLock(path.with_name(f"{name}.held"))


def has_locks(folder: Path) -> bool:
    """Whether files in a folder can be locked; raises OSError where none can be made."""
    try:
        import fcntl
    except ImportError:  # Windows, where they always can
        return True
    with tempfile.TemporaryFile(dir=folder) as probe:
        try:
            fcntl.flock(probe, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in NO_LOCKS:
                return False
            raise
    return True
