"""The rows of one model that no judge makes: unavailable dimensions, groups and total, and the mean held to a floor."""

from __future__ import annotations

import json
import statistics
from dataclasses import replace
from pathlib import Path

from vdmini_bench.config.vbench_dimensions import DIMENSIONS, VBENCH_VERSION
from vdmini_bench.results.score import SCORES, Score
from vdmini_bench.suites.context import write_scores
from vdmini_bench.suites.vbench import VBenchContext
from vdmini_bench.suites.vbench_scorers import counts
from vdmini_bench.vbench.totals import compute_totals

VERSION = f"vbench-{VBENCH_VERSION}"


def run_stage(context: VBenchContext, subject: str, folder: Path) -> None:
    """Write a row for every dimension without a judge, with the reason, for every group and the total, and the mean."""
    found = {name: (None, reason) for name, reason in context.clips.reasons.items()} | _groups(context, subject)
    if context.vbench.floor is not None:
        found |= _held_to(context.vbench.floor, context, subject)
    expected = len(context.videos_of(subject))
    scores = []
    for name, (value, _) in found.items():
        score = Score.unavailable(subject, f"vbench_{name}", VERSION, context.protocol_name, "higher", expected)
        scores.append(score if value is None else replace(score, value=value, n=expected, status="ok"))
    write_scores(folder, context, scores, {f"vbench_{name}": note for name, (_, note) in found.items()})


def _groups(context: VBenchContext, row: str) -> dict[str, tuple[float | None, str]]:
    """Quality, the mode's other group and the total, with notes; None where a dimension that it needs is missing."""
    vbench = context.vbench
    totals = compute_totals(_measured(context, row) if vbench.prompts == "official" else {}, vbench.mode)
    names = [name for name in vbench.all_dimensions if counts(name, vbench)]
    other = "semantic" if vbench.mode == "t2v" else "i2v"
    found = {}
    for part, value in {"quality": totals.quality, other: totals.alignment, "total": totals.total}.items():
        needed = [name for name in names if part in ("total", DIMENSIONS[name].group)]
        missing = [name for name in needed if name in context.clips.reasons]
        note = f"{len(missing)} of {len(needed)} dimensions missing" if missing else f"of {len(needed)} dimensions"
        if part == "total" and missing:
            note += f": {', '.join(missing)}"
        if vbench.prompts != "official":
            note = f"defined for the official prompts alone; {note}"
        found[part] = (value, note)
    return found


def _held_to(floor: float, context: VBenchContext, row: str) -> dict[str, tuple[float | None, str]]:
    """The mean of all dimensions asked for, and whether it reaches the floor: 1 or 0; None where one is missing."""
    asked = [name for name in context.vbench.asked_dimensions if counts(name, context.vbench)]
    missing = [name for name in asked if name in context.clips.reasons]
    if missing:
        return dict.fromkeys(("mean", "passes"), (None, f"of {len(asked)} dimensions missing: {', '.join(missing)}"))
    mean = statistics.fmean(_measured(context, row)[name] for name in asked)
    note = f"unweighted mean of {', '.join(asked)}"
    return {"mean": (mean, note), "passes": (float(mean >= floor), f"1 where the mean reaches {floor:g}, else 0")}


def _measured(context: VBenchContext, row: str) -> dict[str, float]:
    """The scores of the dimensions that count, which this job needs all of."""
    scores = {}
    for name in context.clips.judges:
        if name in DIMENSIONS and counts(name, context.vbench):
            record = json.loads((context.folder(f"judge {row} {name}") / SCORES).read_text(encoding="utf-8"))
            (score,) = map(Score.from_json, record["scores"])
            assert score.value is not None
            scores[name] = score.value
    return scores
