"""Where results live: content-addressed work folders that survive a kill, and one folder for each run."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vdmini.files import short_name
from vdmini.locks import file_lock
from vdmini_bench.system.files import sha256_of, write_atomically
from vdmini_bench.system.progress import say

if TYPE_CHECKING:
    from filelock import BaseFileLock

DONE = "done.json"
# Where a job that makes a model leaves it, in its folder.
STUDENT = "student"
# What a distillation measured of itself, beside it.
SUMMARY = "summary.json"


def _facts(path: Path) -> dict[str, int | str]:
    found = path.stat()
    return {"size": found.st_size, "sha256": _content(path, found.st_size, found.st_mtime_ns, found.st_ctime_ns)}


def _is_intact(path: Path, facts: dict[str, Any]) -> bool:
    """Whether a file is as it was left."""
    return path.stat().st_size == facts["size"] and _facts(path) == facts


@lru_cache(maxsize=65536)
def _content(path: Path, size: int, written: int, changed: int) -> str:
    """The sha256 of a file, read once a process unless its size or a time changes: several jobs and arms share it."""
    return sha256_of(path)


@dataclass(frozen=True)
class Store:
    """The results folder: `work/<stage>-<key>/` for job outputs and `runs/<time>_<suite>_<sha6>/` for runs."""

    root: Path

    def work_folder(self, stage: str, key: str) -> Path:
        """The folder of one job's output, complete or not."""
        return self.root / "work" / f"{stage}-{key}"

    def is_done(self, stage: str, key: str) -> bool:
        """Whether the job ran to its end and every file it left is as it left it, by its sha256."""
        folder = self.work_folder(stage, key)
        try:
            record = json.loads((folder / DONE).read_text())
            return all(_is_intact(folder / name, facts) for name, facts in record["files"].items())
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return False

    @contextmanager
    def locked(self, stage: str, key: str) -> Iterator[bool]:
        """Work on a job as the only process; the value says whether another one worked on it until now.

        A process that is killed holds nothing.
        """
        from filelock import Timeout

        lock = self._lock(stage, key)
        waited = False
        try:
            lock.acquire(timeout=0)
        except Timeout:
            say(f"another process works on {stage}-{key}; waiting for it")
            lock.acquire()
            waited = True
        try:
            yield waited
        finally:
            lock.release()

    @contextmanager
    def if_idle(self, stage: str, key: str) -> Iterator[bool]:
        """Keep others from working on a job; the value is False where a process works on it now."""
        from filelock import Timeout

        lock = self._lock(stage, key)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            yield False
            return
        try:
            yield True
        finally:
            lock.release()

    def _lock(self, stage: str, key: str) -> BaseFileLock:
        return file_lock(self.root / "work" / ".locks" / f"{stage}-{key}.lock")

    def start(self, stage: str, key: str) -> Path:
        """The job's folder, ready to work in; what an interrupted attempt left there is kept to continue from."""
        folder = self.work_folder(stage, key)
        if (folder / DONE).exists():
            # Marked complete but damaged since: nothing in it can be trusted.
            say(f"{folder} was damaged after it was finished; it is made again")
            shutil.rmtree(folder)
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def finish(self, stage: str, key: str, seconds: float) -> None:
        """Mark the job complete; the marker is written last."""
        folder = self.work_folder(stage, key)
        files = {str(path.relative_to(folder)): _facts(path) for path in folder.rglob("*") if path.is_file()}
        write_atomically(folder / DONE, json.dumps({"seconds": round(seconds, 3), "files": files}, sort_keys=True))

    def open_run(self, suite: str, suite_sha: str) -> Path:
        """Make the folder of a new run."""
        now = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
        name = short_name(re.sub(r"[/\\\0]", "-", suite))
        base = self.root / "runs" / f"{now}_{name}_{suite_sha[:6]}"
        for attempt in range(1000):
            folder = base if attempt == 0 else base.with_name(f"{base.name}_{attempt}")
            try:
                folder.mkdir(parents=True)
                return folder
            except FileExistsError:
                continue
        raise FileExistsError(base)

    def runs(self) -> list[Path]:
        """All run folders, oldest first."""
        return sorted(path.parent for path in self.root.glob("runs/*/run.json"))
