"""What to sample: requests from images, prompts and seeds, and how a model samples when nothing else is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from vdmini.files import LONGEST_NAME, is_file_name
from vdmini.sample import ClipRequest, SampleSettings
from vdmini_bench.datasets.captions import choose_scenes
from vdmini_bench.datasets.synthetic import ACTIONS, TEST_GROUPS, draw_clip
from vdmini_bench.errors import SuiteError

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
# Beyond any index that a run or the shipped reference draws.
DRAWN_INDEX = 201
EMBEDDED_SETTINGS = {
    "embedded/svd": SampleSettings(
        steps=12, frames=10, height=32, width=32, noise_strength=0.0, min_guidance=1.0, max_guidance=1.0
    ),
    # A divisor of the 1000 timesteps: the pipeline and its scheduler then agree on where each step ends.
    "embedded/t2v": SampleSettings(steps=10, frames=10, height=32, width=32, guidance=4.0),
}


def choose_requests(model: str, prompts: Path | None, images: Path | None, seeds: str, count: int) -> list[ClipRequest]:
    """Requests from the prompts or images given; for an embedded model, `count` drawn ones when neither is.

    Raises:
        SuiteError: both or none of them are given, or they cannot be read.
    """
    if prompts is not None and images is not None:
        raise SuiteError("--prompts and --images: give one of them")
    if prompts is not None:
        return prompt_requests(prompts, parse_seeds(seeds))
    if images is not None:
        return image_requests(images, parse_seeds(seeds))
    if model not in EMBEDDED_SETTINGS:
        raise SuiteError(f"{model}: give --prompts FILE or --images DIR")
    return caption_requests(count) if model == "embedded/t2v" else drawn_requests(count)


def choose_settings(
    model: str, steps: int | None, frames: int | None, size: str | None, guidance: float | None
) -> SampleSettings:
    """How to sample: an embedded model's own settings, changed by what is given; for others all but guidance is needed.

    Raises:
        SuiteError: something needed is not given, or the size is written in another way.
    """
    default = EMBEDDED_SETTINGS.get(model)
    given = {name: value for name, value in (("steps", steps), ("frames", frames)) if value is not None}
    if size is not None:
        height, _, width = size.partition("x")
        if not (height.isdecimal() and width.isdecimal()):
            raise SuiteError(f"--size {size!r}: write height and width in pixels, such as 576x1024")
        given |= {"height": int(height), "width": int(width)}
    if default is None:
        missing = [name for name in ("steps", "frames", "height", "width") if name not in given]
        if missing:
            raise SuiteError(
                f"{model}: give --steps, --frames and --size, for instance --steps 25 --frames 14 --size 576x1024"
            )
        default = SampleSettings(**given)
    settings = replace(default, **given)
    if guidance is None:
        return settings
    return replace(settings, guidance=guidance, min_guidance=min(guidance, 1.0), max_guidance=guidance)


def image_requests(folder: Path, seeds: Sequence[int]) -> list[ClipRequest]:
    """A request for each image of a folder, in the order of names, and each seed.

    Raises:
        SuiteError: the folder holds no images, or one that cannot be read.
    """
    paths = sorted(path for path in folder.glob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
    if not paths:
        raise SuiteError(f"{folder} holds no images ({', '.join(IMAGE_SUFFIXES)}): give a folder that does")
    requests = []
    for path in paths:
        try:
            image = np.asarray(Image.open(path).convert("RGB"))
        except (OSError, UnidentifiedImageError) as error:
            raise SuiteError(f"{path} is no image that can be read ({error}): replace or remove it") from error
        requests += [ClipRequest(f"{path.stem}-{seed}", seed, image=image) for seed in seeds]
    names = [request.name for request in requests]
    too_long = [name for name in names if not is_file_name(f"{name}.mp4")]
    if too_long:
        raise SuiteError(
            f"{folder}: clips of {too_long[0][:40]}... could not be kept: give that image a shorter name,"
            f" a file's has at most {LONGEST_NAME} bytes"
        )
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise SuiteError(f"{folder}: images that share a name: {', '.join(twice)}: rename all but one of each")
    return requests


def prompt_requests(file: Path, seeds: Sequence[int]) -> list[ClipRequest]:
    """A request for each line of a text file that is not blank, and each seed; named by its place among them.

    Raises:
        SuiteError: the file cannot be read or holds no prompt.
    """
    try:
        prompts = [line.strip() for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise SuiteError(f"cannot read the prompts in {file}: {error}") from error
    if not prompts:
        raise SuiteError(f"{file} holds no prompt: write one a line")
    return [
        ClipRequest(f"{place:04d}-{seed}", seed, prompt=prompt)
        for place, prompt in enumerate(prompts)
        for seed in seeds
    ]


def drawn_requests(count: int) -> list[ClipRequest]:
    """First frames of drawn clips, the same on every call: held-out groups, actions in turn, each with its own seed."""
    names = [
        (action, group, DRAWN_INDEX + turn)
        for turn in range(1 + count // (len(ACTIONS) * len(TEST_GROUPS)))
        for group in TEST_GROUPS
        for action in ACTIONS
    ]
    return [
        ClipRequest(f"{seed:05d}", seed, image=draw_clip(*name).frames[0]) for seed, name in enumerate(names[:count])
    ]


def caption_requests(count: int) -> list[ClipRequest]:
    """Captions with combinations that training never drew, the same on every call, each with its own seed."""
    scenes = choose_scenes(count, "held-out", skip=DRAWN_INDEX)
    return [ClipRequest(f"{seed:05d}", seed, prompt=scene.caption) for seed, scene in enumerate(scenes)]


def parse_seeds(text: str) -> list[int]:
    """Seeds written as `0`, `0,5,7` or `0-7`, in that order.

    Raises:
        SuiteError: it is written in another way, or a seed comes twice.
    """
    seeds: list[int] = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        if not first.isdecimal() or (last and not last.isdecimal()):
            raise SuiteError(f"seeds {text!r}: write them as 0, 0,5,7 or 0-7")
        seeds += range(int(first), int(last or first) + 1)
    if len({*seeds}) != len(seeds) or not seeds:
        raise SuiteError(f"seeds {text!r}: each must come once, and a range must not run backwards")
    return seeds
