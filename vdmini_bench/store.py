"""Where results live: content-addressed work folders that survive a kill, and one folder for each run."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

DONE = "done.json"


def key_of(value: Any) -> str:
    """The content address of JSON-like data: 16 hex digits of the sha256 of its canonical form."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()[:16]


def write_atomically(path: Path, text: str) -> None:
    """Replace `path` by `text` in one step: a reader or a kill sees the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


@dataclass(frozen=True)
class Store:
    """The results folder: `work/<stage>-<key>/` for job outputs and `runs/<time>_<suite>_<sha6>/` for runs."""

    root: Path

    def work_folder(self, stage: str, key: str) -> Path:
        """The folder of one job's output, complete or not."""
        return self.root / "work" / f"{stage}-{key}"

    def is_done(self, stage: str, key: str) -> bool:
        """Whether the job ran to its end and every file it left is as it left it in size."""
        folder = self.work_folder(stage, key)
        try:
            record = json.loads((folder / DONE).read_text())
            return all((folder / name).stat().st_size == size for name, size in record["files"].items())
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return False

    def start(self, stage: str, key: str) -> Path:
        """The job's folder, ready to work in; what an interrupted attempt left there is kept to continue from."""
        folder = self.work_folder(stage, key)
        if (folder / DONE).exists():
            # Marked complete but damaged since: nothing in it can be trusted.
            shutil.rmtree(folder)
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def finish(self, stage: str, key: str, seconds: float) -> None:
        """Mark the job complete; the marker is written last."""
        folder = self.work_folder(stage, key)
        files = {str(path.relative_to(folder)): path.stat().st_size for path in folder.rglob("*") if path.is_file()}
        write_atomically(folder / DONE, json.dumps({"seconds": round(seconds, 3), "files": files}, sort_keys=True))

    def open_run(self, suite: str, suite_sha: str) -> Path:
        """Make the folder of a new run."""
        now = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
        base = self.root / "runs" / f"{now}_{suite}_{suite_sha[:6]}"
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
