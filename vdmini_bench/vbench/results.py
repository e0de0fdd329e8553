"""What the official code found, checked: one finite score, and each video's own, on one scale from 0 to 1."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vdmini_bench.config.vbench_dimensions import DIMENSIONS, VBENCH_VERSION
from vdmini_bench.system.files import write_atomically

# Raise it when what is kept of a dimension changes: kept results of older code are then made again.
RECORD_VERSION = 1


class ResultError(ValueError):
    """The official code's result is not one score with one finite value for each video."""


@dataclass(frozen=True)
class DimensionResult:
    """One dimension's score, raw and from 0 to 1, and each video's by file name; `skipped` had nothing to score."""

    dimension: str
    score: float
    videos: dict[str, float]
    skipped: tuple[str, ...]
    expected: int


def check_result(dimension: str, result: Any, paths: Sequence[str]) -> DimensionResult:
    """Read `[score, [{"video_path", "video_results"}, ...]]`, which must be of these videos and no others.

    Raises:
        ResultError: a number is not finite, or videos are missing, unknown or doubly there.
    """
    if not isinstance(result, Sequence) or len(result) < 2 or not isinstance(result[-1], Sequence):
        raise ResultError(f"{dimension}: the result is not a score with a list of videos")
    of = DIMENSIONS[dimension]
    score = _number(result[0], f"{dimension}: the score")
    try:
        found = [(str(entry["video_path"]), entry["video_results"]) for entry in result[-1]]
    except (TypeError, KeyError) as error:
        raise ResultError(f"{dimension}: a video's result lacks {error}") from error
    # The same prompt may stand twice in the official file; then so do its videos.
    wanted, given = Counter(paths), Counter(path for path, _ in found)
    strange, lacking = sorted(given - wanted), sorted(wanted - given)
    if strange:
        raise ResultError(f"{dimension}: results for {len(strange)} videos that were not asked for, as {strange[0]}")
    if lacking and not of.may_skip:
        raise ResultError(f"{dimension}: no results for {len(lacking)} of {len(wanted)} videos, as {lacking[0]}")
    scale = 100.0 if of.percent else 1.0
    videos = {Path(path).name: _number(value, f"{dimension}: {Path(path).name}") / scale for path, value in found}
    return DimensionResult(dimension, score, videos, tuple(Path(path).name for path in lacking), len(wanted))


def results_file(output: Path, dimension: str) -> Path:
    """Where a dimension's results are kept in the official format."""
    return output / "results" / f"{dimension}_eval_results.json"


def keep_result(
    output: Path, key: str, contents: Mapping[str, str], response: Mapping[str, Any], found: DimensionResult
) -> None:
    """Write a dimension's results: the file in the official format, then the record that says it is there.

    `contents` has the sha256 of every video by file name.
    """
    *totals, entries = response["result"]
    # With file names for the paths of this machine.
    videos = [
        {name: Path(value).name if name in ("video_path", "image_path") else value for name, value in entry.items()}
        for entry in entries
    ]
    official = json.dumps({found.dimension: [*totals, videos]}, indent=4)
    write_atomically(results_file(output, found.dimension), official)
    record = {
        "key": key,
        "contents": dict(contents),
        "vbench": VBENCH_VERSION,
        "score": found.score,
        "videos": found.videos,
        "skipped": list(found.skipped),
        "expected": found.expected,
        "device": response["device"],
        "versions": response["versions"],
        "seconds": round(response["seconds"], 3),
    }
    write_atomically(_record(output, found.dimension), json.dumps(record, indent=1))


def kept_result(output: Path, dimension: str, key: str | None = None) -> DimensionResult | None:
    """What an earlier call kept; None where there is nothing, or it was made from something else than `key` says."""
    try:
        record = kept_record(output, dimension)
        if (key is not None and record["key"] != key) or not results_file(output, dimension).is_file():
            return None
        skipped = tuple(record["skipped"])
        return DimensionResult(dimension, record["score"], record["videos"], skipped, record["expected"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def kept_record(output: Path, dimension: str) -> dict[str, Any]:
    """All that is kept of a result: `contents` has its videos by sha256; `versions` has `native` where ours made it."""
    record: dict[str, Any] = json.loads(_record(output, dimension).read_text(encoding="utf-8"))
    return record


def forget_result(output: Path, dimension: str) -> None:
    """Take away what was kept, so that a dimension that fails now does not show an older score."""
    _record(output, dimension).unlink(missing_ok=True)
    results_file(output, dimension).unlink(missing_ok=True)


def _record(output: Path, dimension: str) -> Path:
    return output / "records" / f"{dimension}.json"


def _number(value: Any, what: str) -> float:
    # A video's result may be a truth value: whether it moves, or shows what was asked for.
    if not isinstance(value, int | float) or not math.isfinite(value):
        raise ResultError(f"{what} is {value!r}, which is no finite number")
    return float(value)
