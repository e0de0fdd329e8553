"""Questions about videos, from entries in the official format."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vdmini_bench.config.vbench_dimensions import DIMENSIONS
from vdmini_bench.errors import SuiteError

TEXTS = ("temporal_style", "overall_consistency")


@dataclass(frozen=True)
class Question:
    """What a dimension asks about a video: `text` is what it should show, or its style; `image` what it came from."""

    dimension: str
    video: Path
    sha256: str
    text: str = ""
    image: Path | None = None


def ask_entries(dimension: str, entries: Sequence[Mapping[str, Any]], contents: Mapping[str, str]) -> list[Question]:
    """A question for each video of the entries; `contents` has the sha256 of every video by file name.

    Raises:
        SuiteError: a prompt lacks what the dimension compares with.
    """
    questions = []
    for entry in entries:
        text = _text(dimension, entry)
        image = Path(entry["image_name"]) if DIMENSIONS[dimension].needs_images else None
        for path in map(Path, entry["video_list"]):
            questions.append(Question(dimension, path, contents[path.name], text, image))
    return questions


def _text(dimension: str, entry: Mapping[str, Any]) -> str:
    if dimension not in ("appearance_style", "scene"):
        return str(entry["prompt_en"]) if dimension in TEXTS else ""
    try:
        wanted = entry["auxiliary_info"][dimension][dimension]
        return str(wanted["scene"] if dimension == "scene" else wanted)
    except (KeyError, TypeError) as error:
        raise SuiteError(f"{dimension}: no {dimension} in auxiliary_info of {entry['prompt_en']!r}") from error
