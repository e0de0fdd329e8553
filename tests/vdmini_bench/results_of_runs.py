"""Run folders and leaderboard rows for tests, as a run leaves them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from vdmini_bench.results.score import COLUMNS, Row, Score, result_line, row_of

ORIGIN = {
    "schema": "1",
    "suite": "ucf101",
    "suite_version": "1",
    "suite_sha": "abc",
    "profile": "embedded",
    "role": "student",
    "machine_id": "machine-1",
    "gpu": "none",
    "torch": "2.13.0",
    "commit": "c0ffee",
    "dirty": "false",
    "date": "2026-01-01T00:00:00Z",
    "run_id": "run-1",
}
FVD = Score("student", "fvd", "1", "p@1", 393.0, "", "lower", 5.9, 180, 180, "ok", (383.0, 393.0, 403.0))
SPEEDUP = Score("student", "speedup_denoiser", "1", "8x32x32", 1.66, "x", "higher", 0.03, 10, 10, "ok", (1.6, 1.7))
PARAMS = Score("student", "params_m", "1", "model", 6.85, "M", "lower", None, 1, 1, "ok")
USUAL = (FVD, SPEEDUP, PARAMS)


def row(score: Score, **origin: str) -> Row:
    assert {*origin} <= {*COLUMNS}
    return row_of(score, {**ORIGIN, **origin})


def write_results(folder: Path, scores: Iterable[Score], status: str = "complete", **origin: str) -> Path:
    """A run folder with these scores; `origin` changes columns of all of its rows."""
    folder.mkdir(parents=True)
    record = {"status": status, "suite": {"name": origin.get("suite", ORIGIN["suite"])}}
    (folder / "run.json").write_text(json.dumps(record))
    lines = [result_line(score, row(score, **origin)) for score in scores]
    (folder / "results.jsonl").write_text("".join(lines))
    return folder


def scaled(score: Score, factor: float) -> Score:
    assert score.value is not None
    return replace(score, value=score.value * factor)


def as_printed(cells: dict[str, str]) -> dict[str, Any]:
    """A line of the leaderboard as `--json` has it: an empty number is null."""
    whole = {name: int(cells[name]) for name in ("schema", "suite_version", "n", "n_expected")}
    others = {name: float(cells[name]) if cells[name] else None for name in ("params_m", "value", "se")}
    return {**cells, **whole, **others, "dirty": {"true": True, "false": False}[cells["dirty"]]}


def quality(rows: list[dict[str, Any]]) -> dict[tuple[str, str], float]:
    """The values that must not depend on when, where or how often a run was interrupted; times do."""
    timed = ("latency", "speedup", "peak_memory")
    return {(row["model"], row["metric"]): row["value"] for row in rows if not row["metric"].startswith(timed)}
