"""What the official code is asked about videos outside any suite: written alike in both environments."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

STYLE = "Van Gogh's style, [1890s]"
# A word of the sentences that Tag2Text in small makes.
SCENE = "baseball"


def official_request(dimension: str, videos: Iterable[tuple[Path, str, Path]], folder: Path) -> dict[str, str]:
    """The driver's request to evaluate videos, each with its prompt and the image that it started from."""
    entries = [
        {
            "prompt_en": prompt,
            "dimension": [dimension],
            "video_list": [str(video)],
            "image_name": str(image),
            "auxiliary_info": {dimension: {dimension: {"scene": SCENE} if dimension == "scene" else STYLE}},
        }
        for video, prompt, image in videos
    ]
    listing = folder.absolute() / f"{dimension}.entries"
    listing.write_text(json.dumps(entries), encoding="utf-8")
    package = "vbench2_beta_i2v" if dimension.startswith("i2v") else "vbench"
    request = {"action": "evaluate", "package": package, "dimension": dimension}
    return {**request, "entries": str(listing), "resolution": "1-1"}


def scores_of(response: dict[str, Any]) -> dict[str, float]:
    """Each video's score by its file's name."""
    return {Path(entry["video_path"]).name: float(entry["video_results"]) for entry in response["result"][-1]}
