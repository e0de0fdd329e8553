"""What a folder of samples holds: `samples.json` says of every clip what its file was made from, and of which bytes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vdmini.requests import ClipRequest
from vdmini_bench.data.video_folder import SUFFIXES
from vdmini_bench.system.files import key_of, sha256_of, write_atomically
from vdmini_bench.system.progress import say

SAMPLES_RECORD = "samples.json"
SHOWN = 5
# What is said of the origin and decides no clip.
NAMES = ("model", "preset")


class SampleRecord:
    """The clips of a folder that were made from one `origin`: a checkpoint, settings, a device and versions.

    A clip is listed only while its file holds the bytes that were made from what its entry says, so a kill at any
    moment leaves the record true: a batch's entries leave it before the files are written, and come back after.
    """

    def __init__(
        self, folder: Path, origin: Mapping[str, object], requests: Sequence[ClipRequest], suffix: str
    ) -> None:
        self.folder, self.origin, self.suffix = folder, dict(origin), suffix
        self.requested = [request.name for request in requests]
        self.entries = self._kept()

    def holds(self, batch: Sequence[ClipRequest]) -> bool:
        """Whether every clip of a batch is there as this origin makes it in this batch: rounding depends on both."""
        return all(
            self.entries.get(self._file(request), {}).get("made_from") == self._made_from(batch) for request in batch
        )

    def forget(self, batch: Sequence[ClipRequest]) -> None:
        """Take a batch's clips off the record, before their files are written anew."""
        for request in batch:
            self.entries.pop(self._file(request), None)
        self.write()

    def add(self, batch: Sequence[ClipRequest]) -> None:
        """Put a batch's clips on the record, whose files are whole."""
        for request in batch:
            self.entries[self._file(request)] = {
                "name": request.name,
                "file": self._file(request),
                "seed": request.seed,
                "prompt": request.prompt,
                "image_sha256": request.image_sha256,
                "made_from": self._made_from(batch),
                "sha256": sha256_of(self.folder / self._file(request)),
            }
        self.write()

    def others(self) -> list[str]:
        """The files of videos in the folder that nobody asks for now."""
        asked = {f"{name}{self.suffix}" for name in self.requested}
        found = self.folder.iterdir() if self.folder.is_dir() else ()
        return sorted(
            path.name
            for path in found
            if path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.name not in asked
        )

    def write(self) -> None:
        """Write what is there: the clips that are asked for, in their order, and beside them all other videos."""
        files = [f"{name}{self.suffix}" for name in self.requested]
        record = {
            **self.origin,
            "clips": [self.entries[file] for file in files if file in self.entries],
            "others": [self.entries.get(file, {"file": file}) for file in self.others()],
        }
        write_atomically(self.folder / SAMPLES_RECORD, json.dumps(record, indent=1) + "\n")

    def say_others(self) -> None:
        """Warn of the videos that nobody asks for, which a score of the folder would count."""
        others = self.others()
        if others:
            more = f" and {len(others) - SHOWN} more" if len(others) > SHOWN else ""
            say(
                f"warning: {len(others)} videos in {self.folder} are of no clip that is asked for now:"
                f" {', '.join(others[:SHOWN])}{more}; they are left as they are: move them before the folder is scored"
            )

    def _file(self, request: ClipRequest) -> str:
        return f"{request.name}{self.suffix}"

    def _made_from(self, batch: Sequence[ClipRequest]) -> str:
        """All that the pixels of a batch follow from; no names matter, nor do the clips'."""
        origin = {name: value for name, value in self.origin.items() if name not in NAMES}
        return key_of([origin, [[request.seed, request.prompt, request.image_sha256] for request in batch]])

    def _kept(self) -> dict[str, dict[str, Any]]:
        """What an earlier call recorded of this origin, by file, without the files that have changed since."""
        path = self.folder / SAMPLES_RECORD
        if not path.exists():
            return {}
        try:
            before = json.loads(path.read_text(encoding="utf-8"))
            changed = [name for name in self.origin if name not in NAMES and before.get(name) != self.origin[name]]
            entries = {
                str(entry["file"]): entry for entry in (*before["clips"], *before["others"]) if "sha256" in entry
            }
            kept = {} if changed else {file: entry for file, entry in entries.items() if self._is_intact(entry)}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            say(f"{path} cannot be read ({type(error).__name__}: {error}): every clip is made again")
            return {}
        if changed:
            say(f"{self.folder} holds clips of another {', '.join(changed)}: every clip is made again")
        elif len(kept) < len(entries):
            say(f"{self.folder}: {len(entries) - len(kept)} files are gone or changed since they were made")
        return kept

    def _is_intact(self, entry: Mapping[str, Any]) -> bool:
        path = self.folder / str(entry["file"])
        return path.parent == self.folder and path.is_file() and sha256_of(path) == entry["sha256"]
