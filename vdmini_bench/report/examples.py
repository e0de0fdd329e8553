"""A few clips of a run, kept beside its results as pictures that a page can play without a video decoder."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from pydantic import PositiveFloat, PositiveInt, TypeAdapter

from vdmini_bench.errors import BenchError

FOLDER, RECORD = "examples", "examples.json"
# Small clips keep every pixel, larger ones become as wide as a page shows them.
LOSSLESS_SIDE, LARGEST_SIDE = 128, 320
QUALITY = 80


@dataclass(frozen=True)
class Example:
    """What all models were asked for once, their clips' files by row of the table, and how far they are apart.

    `differences` has by model the relative distances `content` and `motion` of `vdmini.importance` from the baseline's.
    """

    name: str
    seed: int
    prompt: str | None
    condition: str | None
    clips: dict[str, str]
    differences: dict[str, dict[str, float]]


@dataclass(frozen=True)
class Examples:
    """The examples of a run: each file holds a clip's frames line by line, `columns` in a line, at one size."""

    folder: Path
    frames: PositiveInt
    frames_per_second: PositiveFloat
    width: PositiveInt
    height: PositiveInt
    columns: PositiveInt
    shown: tuple[Example, ...]


def read_examples(run_dir: Path) -> Examples | None:
    """What `keep_examples` wrote; None where nothing was kept.

    Raises:
        BenchError: it cannot be read, or names files outside the folder.
    """
    folder = run_dir / FOLDER
    if not (folder / RECORD).is_file():
        return None
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        found = TypeAdapter(Examples).validate_python({**record, "folder": folder})
        # A run's folder may come from elsewhere: its report must not take in other files of this machine.
        if any(Path(file).name != file for each in found.shown for file in each.clips.values()):
            raise ValueError("a clip's file lies outside the folder")
        return found
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BenchError(f"{folder / RECORD} cannot be read ({error}); run the suite again") from error
