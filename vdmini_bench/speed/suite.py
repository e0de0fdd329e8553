"""Run a speed suite: an entry at a time, each written when it is done and read again where it is there."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from vdmini_bench.config.speed import EntrySpec, SpeedSuite
from vdmini_bench.errors import NoDeviceError
from vdmini_bench.models.pruning import Pruning
from vdmini_bench.results.versions import deciding_versions
from vdmini_bench.speed.benchmark import time_models
from vdmini_bench.speed.paper import speed_lines, with_paper
from vdmini_bench.speed.rows import VERSION, SpeedRow
from vdmini_bench.system.files import key_of, write_atomically
from vdmini_bench.system.fingerprint import package_versions, take_fingerprint
from vdmini_bench.system.progress import say
from vdmini_bench.system.tables import markdown_table

RECORD = "entry.json"
PARTIAL = "scopes.json"
TABLE = "speed.md"


def run_speed_suite(suite: SpeedSuite, output: Path, only: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Time the entries named, or all, in the suite's order; the reports of all that are in the output folder then.

    An entry that was timed before, as it is asked for now and on this machine, is read. After each, the table of all
    is written anew. What an entry that was stopped had timed is in its `scopes.json`; it begins anew.

    Raises:
        SuiteError: an entry is unknown or does not fit its model.
        NoDeviceError: the profile is for a GPU, and torch sees none.
    """
    for name in only:
        suite.entry(name)
    if suite.device == "cuda" and not torch.cuda.is_available():
        raise NoDeviceError(f"profile {suite.profile} is for a GPU, and torch sees none: take --profile cpu")
    machine = take_fingerprint().machine_id
    reports = []
    for name, entry in suite.entries.items():
        folder, identity = output / name, _identity(suite, entry, machine)
        record = _record(folder, identity)
        if record is None and (not only or name in only):
            say(f"speed: {name}")
            record = _time(suite, name, folder, identity)
        if record is not None:
            reports.append(record)
            table = markdown_table(*speed_lines(reports))
            write_atomically(output / TABLE, f"{table}\n")
    return reports


def _time(suite: SpeedSuite, name: str, folder: Path, identity: str) -> dict[str, Any]:
    def keep(rows: Sequence[SpeedRow]) -> None:
        write_atomically(folder / PARTIAL, json.dumps([row.to_json() for row in rows], indent=1) + "\n")

    entry = suite.entry(name)
    report = time_models(entry.request(suite.dtype), torch.device(suite.device), keep)
    report.write(folder)
    record = {**with_paper(report.to_json(), name, entry), "identity": identity}
    # Last: what is in the folder without it is not complete.
    write_atomically(folder / RECORD, json.dumps(record, indent=1) + "\n")
    (folder / PARTIAL).unlink(missing_ok=True)
    return record


def _identity(suite: SpeedSuite, entry: EntrySpec, machine: str) -> str:
    asked = asdict(entry.request(suite.dtype))
    # A file of a plan by what it says, and models by what the packages make of their names.
    plans = [str(Pruning.read(plan)) for plan in entry.plans]
    return key_of([asked, plans, suite.device, machine, deciding_versions(package_versions()), VERSION])


def _record(folder: Path, identity: str) -> dict[str, Any] | None:
    try:
        record: dict[str, Any] = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return record if record.get("identity") == identity else None
