"""The rows of one model that nothing here measures: unavailable dimensions, and groups and total where none is."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from vdmini_bench.config.vbench_dimensions import DIMENSIONS, VBENCH_VERSION
from vdmini_bench.results.score import SCORES, Score
from vdmini_bench.suites.context import write_scores
from vdmini_bench.suites.vbench import VBenchContext
from vdmini_bench.suites.vbench_scorers import counts
from vdmini_bench.vbench.totals import compute_totals

VERSION = f"vbench-{VBENCH_VERSION}"


def run_stage(bench: VBenchContext, subject: str, folder: Path) -> None:
    """Write a row for every dimension without a judge, with the reason, and for every group and the total."""
    expected = len(bench.videos_of(subject))
    found = [
        (Score.unavailable(subject, f"vbench_{name}", VERSION, bench.protocol_name, "higher", expected), reason)
        for name, reason in bench.clips.reasons.items()
    ]
    found += _groups(bench, subject)
    write_scores(folder, bench, [score for score, _ in found], {score.metric: note for score, note in found})


def _groups(bench: VBenchContext, row: str) -> list[tuple[Score, str]]:
    """Quality, the mode's other group and the total; each is unavailable where a dimension that it needs is missing."""
    vbench, protocol, expected = bench.vbench, bench.protocol_name, len(bench.videos_of(row))
    scores = {} if vbench.prompts == "embedded" else _measured(bench, row)
    totals = compute_totals(scores, vbench.mode)
    other = "semantic" if vbench.mode == "t2v" else "i2v"
    names = [name for name in vbench.all_dimensions if counts(name, vbench)]
    parts = {
        "quality": (totals.quality, [name for name in names if DIMENSIONS[name].group == "quality"]),
        other: (totals.alignment, [name for name in names if DIMENSIONS[name].group == other]),
        "total": (totals.total, names),
    }
    found = []
    for part, (value, needed) in parts.items():
        score = Score.unavailable(row, f"vbench_{part}", VERSION, protocol, "higher", expected)
        if value is not None:
            score = replace(score, value=value, n=expected, status="ok")
        missing = [name for name in needed if name in bench.clips.reasons]
        note = f"{len(missing)} of {len(needed)} dimensions missing" if missing else f"of {len(needed)} dimensions"
        if part == "total" and missing:
            note += f": {', '.join(missing)}"
        if vbench.prompts == "embedded":
            note = f"defined for the official prompts alone; {note}"
        found.append((score, note))
    return found


def _measured(bench: VBenchContext, row: str) -> dict[str, float]:
    """The scores of the dimensions that count, which this job needs all of."""
    scores = {}
    for name in bench.clips.judges:
        if counts(name, bench.vbench):
            record = json.loads((bench.folder(f"judge {row} {name}") / SCORES).read_text(encoding="utf-8"))
            (score,) = map(Score.from_json, record["scores"])
            assert score.value is not None
            scores[name] = score.value
    return scores
