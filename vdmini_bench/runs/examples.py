"""A few clips of a run for people to look at: the same conditions from every model."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vdmini_bench.data.preprocessing import resize_clip
from vdmini_bench.data.video import read_frames
from vdmini_bench.report.examples import (
    FOLDER,
    LARGEST_SIDE,
    LOSSLESS_SIDE,
    QUALITY,
    RECORD,
    Example,
    Examples,
)
from vdmini_bench.suites.context import SuiteContext
from vdmini_bench.system.files import write_atomically

EXAMPLES = 6


def example_clips(context: SuiteContext) -> dict[str, list[NDArray[np.uint8]]]:
    """The first clips T H W C uint8 of the real set, where there is one, and of each model, at the sampled size."""
    settings = context.sample_settings()
    clips = {}
    for model, paths in context.examples(EXAMPLES).items():
        # A generated clip is all there is: its frames are taken as they are.
        rate = None if model in context.graph.models else context.suite.profile.rate
        shown = [read_frames(path, settings.frames, rate) for path in paths]
        clips[model] = [resize_clip(clip, settings.width, settings.height) for clip in shown]
    return clips


def keep_examples(context: SuiteContext, run_dir: Path, clips: Mapping[str, Sequence[NDArray[np.uint8]]]) -> None:
    """Write `examples/` of a run from its clips T H W C uint8 by row of the table, in the order of `examples`."""
    frames, height, width = next(iter(clips.values()))[0].shape[:3]
    count = min(map(len, clips.values()))
    paths, baseline = context.examples(count), context.suite.profile.baseline
    asked = context.requests([context.clip_names.index(path.stem) for path in paths[baseline][:count]])
    folder = run_dir / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    size, columns = _shown_size(width, height), math.ceil(math.sqrt(frames))
    examples = []
    for place, request in enumerate(asked):
        # Rows have names that no file could have.
        files = {row: f"{place:02d}-{index:02d}.webp" for index, row in enumerate(clips)}
        for row, file in files.items():
            _write_sheet(folder / file, clips[row][place], size, columns)
        condition = paths["real"][place].name if request.image is not None and "real" in paths else None
        differences = {
            row: _differences(clips[baseline][place], clips[row][place])
            for row in clips
            if row not in ("real", baseline)
        }
        examples.append(Example(request.name, request.seed, request.prompt, condition, files, differences))
    rate = context.suite.profile.frames_per_second
    whole = Examples(folder, frames, rate, *size, columns, tuple(examples))
    record = {key: value for key, value in asdict(whole).items() if key != "folder"}
    write_atomically(folder / RECORD, json.dumps({**record, "shown": [asdict(each) for each in examples]}, indent=1))


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
