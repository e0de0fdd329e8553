"""What to sample: requests from images, prompts and seeds, and how a model samples when nothing else is asked for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vdmini.files import LONGEST_NAME, is_file_name
from vdmini.prompts import cut_prompts
from vdmini.requests import ClipRequest, SampleSettings
from vdmini_bench.data.captions import choose_scenes
from vdmini_bench.data.picture import UnreadablePictureError, list_pictures, read_picture
from vdmini_bench.data.prompts import read_prompt_file
from vdmini_bench.data.synthetic import ACTIONS, TEST_GROUPS, draw_clip
from vdmini_bench.errors import SuiteError, few
from vdmini_bench.system.progress import say

if TYPE_CHECKING:
    from diffusers.pipelines.pipeline_utils import DiffusionPipeline

# Of a long prompt in a message.
SHOWN_LETTERS = 60
# Beyond any index that a run or the shipped reference draws.
DRAWN_INDEX = 201
EMBEDDED_SETTINGS = {
    "embedded/svd": SampleSettings(
        steps=12, frames=10, height=32, width=32, noise_strength=0.0, min_guidance=1.0, max_guidance=1.0
    ),
    # A divisor of the 1000 timesteps: the pipeline and its scheduler then agree on where each step ends.
    "embedded/t2v": SampleSettings(steps=10, frames=10, height=32, width=32, guidance=4.0),
    "embedded/wan": SampleSettings(steps=12, frames=9, height=32, width=32, guidance=3.0),
}


def choose_requests(model: str, prompts: Path | None, images: Path | None, seeds: str, count: int) -> list[ClipRequest]:
    """Requests from the prompts, images or both given; for an embedded model, `count` drawn ones when neither is.

    Raises:
        SuiteError: none of them are given, they cannot be read, or do not go together.
    """
    if prompts is not None and images is not None:
        return told(image_requests(images, parse_seeds(seeds)), read_prompt_file(prompts), len(parse_seeds(seeds)))
    if prompts is not None:
        return prompt_requests(prompts, parse_seeds(seeds))
    if images is not None:
        return image_requests(images, parse_seeds(seeds))
    if model not in EMBEDDED_SETTINGS:
        raise SuiteError(f"{model}: give --prompts FILE or --images DIR")
    return drawn_requests(count) if model == "embedded/svd" else caption_requests(count)


def told(requests: Sequence[ClipRequest], prompts: Sequence[str], seeds: int) -> list[ClipRequest]:
    """Requests of images, `seeds` of each, with prompts: one for all images, or one for each in the order of names.

    Raises:
        SuiteError: there are neither so many prompts nor one.
    """
    images = len(requests) // seeds
    if len(prompts) not in (1, images):
        raise SuiteError(f"{len(prompts)} prompts for {images} images: give one for all, or one for each of them")
    texts = prompts if len(prompts) == images else [*prompts] * images
    return [replace(request, prompt=texts[place // seeds]) for place, request in enumerate(requests)]


def choose_settings(model: str, asked: Mapping[str, Any], preset: SampleSettings | None = None) -> SampleSettings:
    """How to sample: by a preset's or an embedded model's own settings, changed by what is asked for by name.

    For any other model steps, frames, height and width are needed; None asks for nothing.

    Raises:
        SuiteError: something needed is not given, or there is not one sigma for each step.
    """
    default = preset or EMBEDDED_SETTINGS.get(model)
    given = {name: value for name, value in asked.items() if value is not None}
    if given.get("sigmas") is not None:
        given["sigmas"] = tuple(given["sigmas"])
    if default is None:
        missing = [name for name in ("steps", "frames", "height", "width") if name not in given]
        if missing:
            raise SuiteError(
                f"{model}: give --steps, --frames and --size, for instance --steps 25 --frames 14 --size 576x1024, or"
                " --preset"
            )
        default = SampleSettings(**given)
    settings, guidance = replace(default, **given), given.get("guidance")
    if settings.sigmas is not None and len(settings.sigmas) != settings.steps:
        raise SuiteError(f"{len(settings.sigmas)} sigmas for {settings.steps} steps: give one for each step")
    # A preset's own guidance is for text, beside which it says that for images.
    if guidance is None or (preset is not None and guidance == preset.guidance):
        return settings
    return replace(settings, min_guidance=min(guidance, 1.0), max_guidance=guidance)


def parse_size(size: str) -> tuple[int, int]:
    """Height and width written as `576x1024`; raises SuiteError where they are written in another way."""
    height, _, width = size.partition("x")
    if not (height.isdecimal() and width.isdecimal()):
        raise SuiteError(f"--size {size!r}: write height and width in pixels, such as 576x1024")
    return int(height), int(width)


def image_requests(folder: Path, seeds: Sequence[int], skip_unreadable: bool = False) -> list[ClipRequest]:
    """A request for each image of a folder, in the order of names, and each seed.

    With `skip_unreadable` images that cannot be read are left out, and named on stderr.

    Raises:
        SuiteError: the folder holds no images, or some, all of them named, that cannot be read.
    """
    images, problems = {}, []
    for path in list_pictures(folder):
        try:
            images[path.stem] = read_picture(path)
        except UnreadablePictureError as problem:
            problems.append(problem)
    if problems and not (skip_unreadable and images):
        raise SuiteError("\n".join(map(str, problems)))
    if problems:
        named = few([f"{problem.path.name} ({problem.reason})" for problem in problems])
        say(f"warning: {len(problems)} images of {folder} cannot be read and are left out: {named}")
    requests = [ClipRequest(f"{name}-{seed}", seed, image=image) for name, image in images.items() for seed in seeds]
    too_long = [request.name for request in requests if not is_file_name(f"{request.name}.mp4")]
    if too_long:
        raise SuiteError(
            f"{folder}: clips of {too_long[0][:40]}... could not be kept: give that image a shorter name,"
            f" a file's has at most {LONGEST_NAME} bytes"
        )
    return requests


def prompt_requests(file: Path, seeds: Sequence[int]) -> list[ClipRequest]:
    """A request for each prompt of a file, as `read_prompt_file` reads it, and each seed; named by its place there.

    Raises:
        SuiteError: the file cannot be read or holds no prompt.
    """
    return [
        ClipRequest(f"{place:04d}-{seed}", seed, prompt=prompt)
        for place, prompt in enumerate(read_prompt_file(file))
        for seed in seeds
    ]


def warn_of_cut_prompts(pipeline: DiffusionPipeline | None, prompts: Iterable[str | None]) -> None:
    """Name on stderr, a few of many, the prompts that a pipeline's text encoders cut, and what is lost of them."""
    if pipeline is None:
        return
    by_encoder: dict[tuple[str, int], list[str]] = {}
    for cut in cut_prompts(pipeline, filter(None, prompts)):
        loss = f"{_beginning(cut.lost)!r} of {_beginning(cut.prompt)!r}"
        by_encoder.setdefault((cut.encoder, cut.tokens), []).append(loss)
    for (encoder, tokens), losses in by_encoder.items():
        say(
            f"warning: prompts longer than the {tokens} tokens that {encoder} reads: {len(losses)}; the model does not"
            f" see {few(losses)}"
        )


def _beginning(text: str) -> str:
    return text if len(text) <= SHOWN_LETTERS else f"{text[:SHOWN_LETTERS]}..."


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
