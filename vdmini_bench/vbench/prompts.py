"""The official prompts, the videos that they ask for, and the names and seeds of those videos."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vdmini.files import is_file_name
from vdmini_bench.assets.cache import asset_path
from vdmini_bench.assets.catalogue import ASSETS, VBENCH_PROMPTS
from vdmini_bench.config.vbench_dimensions import DIMENSIONS, FILTERED, Mode
from vdmini_bench.data.prompts import read_prompt_file
from vdmini_bench.errors import MissingAssetsError, SuiteError
from vdmini_bench.system.text_files import read_text
from vdmini_bench.vbench.environment import Environment

RATIOS = ("1-1", "8-5", "7-4", "16-9")
I2V_PROMPTS = "vbench2_i2v_full_info.json"
SAMPLES = 5
# Of these the first five without motion are scored: see `filtering`.
SAMPLES_TO_FILTER = 25
_NUMBERED = re.compile(r"^(?P<prompt>.*)-(?P<index>\d+)$", re.DOTALL)


@dataclass(frozen=True)
class Prompt:
    """One entry of an official prompt file, with the image that it animates where there is one."""

    text: str
    dimensions: tuple[str, ...]
    auxiliary: Mapping[str, Any] = field(default_factory=dict)
    image: Path | None = None


@dataclass(frozen=True)
class VideoRequest:
    """One video that the protocol asks for; its name has no suffix."""

    name: str
    prompt: str
    index: int
    seed: int
    image: Path | None = None


def read_prompts(file: Path, images: Path | None = None) -> list[Prompt]:
    """Read `VBench_full_info.json` or `vbench2_i2v_full_info.json`; `images` is the folder of one aspect ratio's crops.

    Raises:
        SuiteError: the file is no such list, or a prompt of it cannot be a file's name.
    """
    try:
        entries = json.loads(read_text(file))
        prompts = [_prompt(entry, images) for entry in entries]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise SuiteError(f"{file} is no official VBench prompt file ({reason}): get it again") from error
    for prompt in prompts:
        name = f"{prompt.text}-{SAMPLES_TO_FILTER}.mp4"
        if not prompt.text or not is_file_name(name):
            raise SuiteError(f"{file}: the prompt {prompt.text!r} cannot be a file's name, which the protocol wants")
    return prompts


def find_prompts(
    mode: Mode, prompt_file: Path | None, images: Path | None, ratio: str | None, environment: Environment
) -> tuple[Prompt, ...]:
    """The official prompts of a mode: from the file given, the asset, the environment's package or the imported folder.

    Raises:
        SuiteError: the file is no prompt file, or image to video is not told its images' aspect ratio.
        MissingAssetsError: the prompts are not there.
    """
    if mode == "custom":
        return ()
    if mode == "t2v":
        return tuple(read_prompts(prompt_file or _prompts_of_the_package(environment)))
    if ratio is None:
        raise SuiteError(f"mode i2v: say by --ratio {', '.join(RATIOS)} which images the videos were made from")
    folder = asset_path("vbench-i2v")
    if prompt_file is None and folder is None:
        raise MissingAssetsError(
            "VBench-I2V's prompts are not here; next: `vdmini-bench assets import vbench-i2v PATH`, or --prompts FILE"
        )
    crops = images or (folder / "data" / "crop" / ratio if folder is not None else None)
    file = prompt_file or (folder / I2V_PROMPTS if folder is not None else Path(I2V_PROMPTS))
    return tuple(read_prompts(file, crops))


def _prompts_of_the_package(environment: Environment) -> Path:
    """The prompts of text to video, which are a file of the package: fetched alone, or with its environment."""
    fetched = asset_path(VBENCH_PROMPTS)
    if fetched is None and environment.record() is None:
        raise MissingAssetsError(f"VBench's prompts are not here; next: `{ASSETS[VBENCH_PROMPTS].command}`")
    return fetched or environment.prompt_file()


def some_prompts(prompts: Iterable[Prompt], file: Path) -> tuple[Prompt, ...]:
    """Those of the official prompts that a file lists, in the official order.

    Raises:
        SuiteError: the file cannot be read, or lists a prompt that is none of them.
    """
    wanted, official = dict.fromkeys(read_prompt_file(file)), tuple(prompts)
    strange = [*wanted.keys() - {prompt.text for prompt in official}]
    if strange:
        raise SuiteError(f"{file}: {len(strange)} of its prompts are no official ones, such as {min(strange)!r}")
    return tuple(prompt for prompt in official if prompt.text in wanted)


def request_videos(
    prompts: Iterable[Prompt],
    dimensions: Sequence[str],
    base_seed: int = 0,
    *,
    filtered: bool = True,
    samples: int = SAMPLES,
) -> list[VideoRequest]:
    """The videos that these dimensions are scored on, each once, in the order of the prompt file.

    With `filtered`, prompts of temporal_flickering are sampled 25 times, of which the official filter keeps five
    without motion; without, like the others: `samples` times.
    """
    count: dict[str, int] = {}
    images: dict[str, Path | None] = {}
    for prompt in prompts:
        if {*dimensions} & {*prompt.dimensions}:
            more = filtered and FILTERED in dimensions and FILTERED in prompt.dimensions
            count[prompt.text] = max(count.get(prompt.text, 0), SAMPLES_TO_FILTER if more else samples)
            images[prompt.text] = images.get(prompt.text) or prompt.image
    return [
        VideoRequest(f"{text}-{index}", text, index, seed_of(text, index, base_seed), images[text])
        for text, number in count.items()
        for index in range(number)
    ]


def seed_of(prompt: str, index: int, base_seed: int = 0) -> int:
    """The seed of one video, below 2^32: a hash, so that neither the order nor the choice of prompts changes it."""
    digest = hashlib.sha256(f"{base_seed}\0{index}\0{prompt}".encode()).digest()
    return int.from_bytes(digest[:4], "big")


def official_entries(prompts: Iterable[Prompt], dimension: str, videos: Mapping[str, Path]) -> list[dict[str, Any]]:
    """What the official code reads for one dimension: its prompts with the paths of their videos.

    `videos` maps names without suffix to files. The first five samples of a prompt are listed, or those there are.
    """
    entries = []
    for prompt in prompts:
        if dimension in prompt.dimensions:
            names = [f"{prompt.text}-{index}" for index in range(SAMPLES)]
            paths = [videos[name] for name in names if name in videos]
            entries.append(_entry(dimension, prompt.text, paths, prompt.image))
            if prompt.auxiliary:
                entries[-1]["auxiliary_info"] = dict(prompt.auxiliary)
    return entries


def custom_entries(
    dimension: str,
    videos: Mapping[str, Path],
    images: Mapping[str, Path] | None = None,
    texts: Mapping[str, str] | None = None,
) -> list[dict[str, Any]]:
    """The same for videos of any prompt: by their names in `texts`, or else that name without a number at its end.

    Raises:
        SuiteError: the dimension needs the image of a video, and there is none of its prompt's name.
    """
    entries = []
    for name, path in videos.items():
        prompt = (texts or {}).get(name) or prompt_of(name)
        image = (images or {}).get(prompt) or (images or {}).get(name)
        if image is None and DIMENSIONS[dimension].needs_images:
            raise SuiteError(f"{dimension}: no image {prompt}.jpg or .png for {path.name}; give --images FOLDER")
        entries.append(_entry(dimension, prompt, [path], image))
    return entries


def prompt_of(name: str) -> str:
    """The prompt that a video's name, without suffix, says: `prompt-3` and `prompt` are of the same."""
    found = _NUMBERED.match(name)
    return found["prompt"] if found else name


def _prompt(entry: dict[str, Any], images: Path | None) -> Prompt:
    name = entry.get("image_name")
    auxiliary = entry.get("auxiliary_info") or {}
    dimensions = tuple(entry["dimension"])
    if not isinstance(entry["prompt_en"], str) or not all(isinstance(part, str) for part in dimensions):
        raise TypeError("prompt_en must be text and dimension a list of names")
    return Prompt(entry["prompt_en"], dimensions, auxiliary, images / name if images and name else None)


def _entry(dimension: str, prompt: str, videos: Iterable[Path], image: Path | None) -> dict[str, Any]:
    paths = [str(path.absolute()) for path in videos]
    entry: dict[str, Any] = {"prompt_en": prompt, "dimension": [dimension], "video_list": paths}
    # The official code joins its own folder with this, which an absolute path replaces.
    return entry if image is None else {**entry, "image_name": str(image.absolute())}
