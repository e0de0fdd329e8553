"""The official filter before temporal_flickering: of 25 samples a prompt, the first five without motion are scored."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from vdmini_bench.config.vbench_dimensions import FILTER_WEIGHTS, FILTERED
from vdmini_bench.system.files import key_of, write_atomically
from vdmini_bench.system.progress import say
from vdmini_bench.vbench.completeness import Completeness
from vdmini_bench.vbench.environment import DriverError, call_driver, weights_folder
from vdmini_bench.vbench.prompts import SAMPLES, SAMPLES_TO_FILTER, Prompt

RECORD = "static_videos.json"


def candidates(prompts: Iterable[Prompt]) -> list[str]:
    """The names, without suffix, of the videos that the filter looks at."""
    return [f"{text}-{index}" for text in _texts(prompts) for index in range(SAMPLES_TO_FILTER)]


def ask_official_filter(
    prompts: Iterable[Prompt], found: Completeness, output: Path, command: tuple[str, ...], packages: str
) -> dict[str, bool]:
    """Of each candidate, by its name, whether the official filter finds no motion in it.

    What was said of a video before is not asked again while its bytes, the network and the packages are the same.

    Raises:
        DriverError: the filter failed or left out a video.
    """
    names = candidates(prompts)
    weights = weights_folder() / FILTER_WEIGHTS[0].path
    state = [weights.stat().st_size, weights.stat().st_mtime_ns] if weights.is_file() else []
    keys = {name: key_of([found.files[name].sha256, state, packages]) for name in names}
    known = _read(output / RECORD)
    asked = {str(found.videos[name].absolute()): name for name in names if keys[name] not in known}
    if asked:
        response = call_driver(command, {"action": "filter", "videos": [*asked]}, output / "logs", "static_filter")
        static = response.get("static")
        if not isinstance(static, dict) or {*static} != {*asked}:
            log = output / "logs" / "static_filter.log"
            raise DriverError("static_filter", "its response is not of the videos that were asked for", log)
        known |= {keys[name]: bool(static[path]) for path, name in asked.items()}
        write_atomically(output / RECORD, json.dumps(known, indent=1))
    return {name: known[keys[name]] for name in names}


def first_static(prompts: Iterable[Prompt], found: Completeness, static: Mapping[str, bool]) -> dict[str, Path]:
    """The videos to score, under the names `prompt-0` to `prompt-4`; a prompt may have fewer, or none.

    `static` says of each candidate, by its name, whether it has no motion.
    """
    kept = {}
    for text in _texts(prompts):
        # The official order is that of sorted file names: 0, 1, 10, 11, ..., 2, 20.
        names = sorted(f"{text}-{index}" for index in range(SAMPLES_TO_FILTER))
        kept[text] = [name for name in names if static[name]][:SAMPLES]
    few = sum(len(chosen) < SAMPLES for chosen in kept.values())
    if few:
        say(f"static_filter: {few} of {len(kept)} prompts have fewer than {SAMPLES} videos without motion")
    return {f"{text}-{place}": found.videos[name] for text, chosen in kept.items() for place, name in enumerate(chosen)}


def _texts(prompts: Iterable[Prompt]) -> list[str]:
    return [prompt.text for prompt in prompts if FILTERED in prompt.dimensions]


def _read(file: Path) -> dict[str, bool]:
    try:
        return {str(name): bool(value) for name, value in json.loads(file.read_text(encoding="utf-8")).items()}
    except (OSError, ValueError, AttributeError):
        return {}
