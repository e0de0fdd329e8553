"""What of a results folder can go: runs that are named, and the finished work that no other run needs."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from vdmini_bench.results.records import read_run
from vdmini_bench.results.store import DONE, Store


@dataclass(frozen=True)
class Freeable:
    """A folder that can go, what it is, and the bytes in it."""

    folder: Path
    what: str
    size: int


def freeable(store: Store, runs: Sequence[Path], *, unlisted: bool) -> list[Freeable]:
    """The named `runs` with the work that no other run lists, and, where asked for, all work that no run lists.

    The last is that of distillations by themselves, of interrupted runs and of earlier versions. What a process is
    working on is left out.

    Raises:
        BenchError: a run cannot be read, so that nobody knows what it needs.
    """
    named = {run.resolve() for run in runs}
    needed = {run.resolve(): _keys(run) for run in store.runs()}
    kept = {key for run, keys in needed.items() if run not in named for key in keys}
    going = {key for run in named for key in needed.get(run, ())} - kept
    found = [Freeable(run, "a run's tables, records and report", _bytes(run)) for run in runs]
    for folder in sorted((store.root / "work").glob("*-*")):
        stage, _, key = folder.name.rpartition("-")
        listed = any(key in keys for keys in needed.values())
        if key not in going and (listed or not unlisted):
            continue
        with store.if_idle(stage, key) as idle:
            if idle:
                state = "" if (folder / DONE).is_file() else ", interrupted"
                found.append(Freeable(folder, f"{stage}{state}{'' if listed else ', in no run'}", _bytes(folder)))
    return found


def free(store: Store, freed: Collection[Freeable]) -> None:
    """Remove folders; the leaderboard's rows stay."""
    for each in freed:
        stage, _, key = each.folder.name.rpartition("-")
        with store.if_idle(stage, key) as idle:
            if idle:
                # The marker first: what is left of a killed removal is not taken for finished work.
                (each.folder / DONE).unlink(missing_ok=True)
                shutil.rmtree(each.folder)


def _keys(run: Path) -> set[str]:
    return {str(job["key"]) for job in read_run(run).get("jobs", ())}


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
