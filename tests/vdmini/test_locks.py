from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import Timeout

from vdmini import locks
from vdmini.locks import file_lock, has_locks

# A process on a disk without locks that holds one, says so, and does not end by itself.
HOLDER = """
import errno, fcntl, sys, time
from pathlib import Path
def flock(file, operation): raise OSError(errno.ENOLCK, "none")
fcntl.flock = flock
from vdmini.locks import file_lock
with file_lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture(params=["ENOLCK", "ENOSYS", "EOPNOTSUPP"])
def without_locks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every disk is one that has no file locks."""
    number = getattr(errno, request.param)

    def flock(file: object, operation: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    monkeypatch.setattr(locks, "_told", set())


def test_one_holds_a_lock_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "new" / "job.lock"
    with file_lock(path), pytest.raises(Timeout):
        file_lock(path).acquire(timeout=0)
    with file_lock(path):
        assert has_locks(path.parent)


@pytest.mark.usefixtures("without_locks")
def test_one_holds_it_on_a_disk_without_locks_which_is_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "job.lock"
    assert not has_locks(tmp_path)
    # As a disk leaves it that had locks before: it must not read as held.
    path.touch()
    with file_lock(path), pytest.raises(Timeout):
        file_lock(path).acquire(timeout=0)
    with file_lock(path):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["job.lock"]
    (said,) = caplog.messages
    assert str(tmp_path) in said
    assert "no file locks" in said


@pytest.mark.usefixtures("without_locks")
def test_a_killed_process_holds_nobody_up_without_locks(tmp_path: Path) -> None:
    path = tmp_path / "job.lock"
    with subprocess.Popen([sys.executable, "-c", HOLDER, path], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(Timeout):
            file_lock(path).acquire(timeout=0.2)
        holder.send_signal(signal.SIGKILL)
    with file_lock(path).acquire(timeout=20):
        pass


def test_a_disk_that_fails_otherwise_is_no_disk_without_locks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def flock(file: object, operation: int) -> None:
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(OSError, match="broken"):
        file_lock(tmp_path / "job.lock")
