"""A few clips of a run, kept beside its results as pictures that a page can play without a video decoder."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import PositiveFloat, PositiveInt, TypeAdapter

from vdmini_bench.errors import BenchError
from vdmini_bench.store import write_atomically

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from vdmini_bench.workbench import CommonBench

FOLDER, RECORD = "examples", "examples.json"
# Small clips keep every pixel, larger ones become as wide as a page shows them.
LOSSLESS_SIDE, LARGEST_SIDE = 128, 320
QUALITY = 80
TEACHER = "teacher"


@dataclass(frozen=True)
class Example:
    """What all models were asked for once, their clips' files by row of the table, and how far they are apart.

    `differences` has by model the relative distances `content` and `motion` of `vdmini.importance` from the teacher's.
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


def keep_examples(bench: CommonBench, run_dir: Path, clips: Mapping[str, Sequence[NDArray[np.uint8]]]) -> None:
    """Write `examples/` of a run from its clips T H W C uint8 by row of the table, in the order of `bench.examples`."""
    frames, height, width = next(iter(clips.values()))[0].shape[:3]
    count = min(map(len, clips.values()))
    paths = bench.examples(count)
    asked = bench.requests([bench.clip_names.index(path.stem) for path in paths[TEACHER][:count]])
    folder = run_dir / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    size, columns = _shown_size(width, height), math.ceil(math.sqrt(frames))
    examples = []
    for place, request in enumerate(asked):
        files = {row: f"{place:02d}-{row}.webp" for row in clips}
        for row, file in files.items():
            _write_sheet(folder / file, clips[row][place], size, columns)
        condition = paths["real"][place].name if request.image is not None and "real" in paths else None
        differences = {
            row: _differences(clips[TEACHER][place], clips[row][place]) for row in clips if row not in ("real", TEACHER)
        }
        examples.append(Example(request.name, request.seed, request.prompt, condition, files, differences))
    rate = bench.suite.profile.frames_per_second
    whole = Examples(folder, frames, rate, *size, columns, tuple(examples))
    record = {key: value for key, value in asdict(whole).items() if key != "folder"}
    write_atomically(folder / RECORD, json.dumps({**record, "shown": [asdict(each) for each in examples]}, indent=1))


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


def _shown_size(width: int, height: int) -> tuple[int, int]:
    scale = min(1.0, LARGEST_SIDE / max(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))


def _write_sheet(path: Path, clip: NDArray[np.uint8], size: tuple[int, int], columns: int) -> None:
    from PIL import Image

    width, height = size
    sheet = Image.new("RGB", (columns * width, math.ceil(len(clip) / columns) * height))
    for place, frame in enumerate(clip):
        picture = Image.fromarray(frame)
        if picture.size != size:
            picture = picture.resize(size, Image.Resampling.LANCZOS)
        sheet.paste(picture, (place % columns * width, place // columns * height))
    sheet.save(path, "WEBP", lossless=max(size) <= LOSSLESS_SIDE, quality=QUALITY, method=4)


def _differences(teacher: NDArray[np.uint8], other: NDArray[np.uint8]) -> dict[str, float]:
    from vdmini.importance import content_distance, motion_distance

    return {
        "content": round(content_distance(teacher[None], other[None]), 4),
        "motion": round(motion_distance(teacher[None], other[None]), 4),
    }
