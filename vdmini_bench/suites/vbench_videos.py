"""The videos that a VBench suite asks models for: of prompts and first frames of the drawn world, or official ones."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from itertools import count
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from vdmini.files import replacing
from vdmini.requests import ClipRequest
from vdmini_bench.config.vbench import VBenchSpec
from vdmini_bench.data.captions import choose_scenes, draw_scene, parse_caption
from vdmini_bench.data.picture import read_picture
from vdmini_bench.data.preprocessing import resize_clip
from vdmini_bench.data.prompts import read_prompt_file
from vdmini_bench.data.requests import DRAWN_INDEX
from vdmini_bench.data.synthetic import ACTIONS, TEST_GROUPS, WORLD_VERSION, draw_clip
from vdmini_bench.errors import SuiteError, few
from vdmini_bench.vbench.prompts import VideoRequest, seed_of

# Beyond the scenes that training and its validation draw.
FIRST_SCENE = 3_000_000
# Of a crop's sides from the ratio that it is for: whole pixels, and what rounding adds.
SHAPE_TOLERANCE = 0.02
# What `draw_clip` takes: an action, a group and an index.
Origin = tuple[str, int, int]


def embedded_videos(vbench: VBenchSpec, images: Path) -> tuple[VideoRequest, ...]:
    """The videos of the embedded prompts; for image to video with the paths of their first frames in `images`."""
    assert vbench.prompt_count is not None
    assert vbench.samples_per_prompt is not None
    captions = drawn_captions(vbench.prompt_count) if vbench.mode == "t2v" else [*drawn_origins(vbench.prompt_count)]
    return tuple(
        VideoRequest(
            name=f"{caption}-{index}",
            prompt=caption,
            index=index,
            seed=seed_of(caption, index, vbench.seed),
            image=images / f"{caption}.png" if vbench.mode == "i2v" else None,
        )
        for caption in captions
        for index in range(vbench.samples_per_prompt)
    )


def listed_videos(vbench: VBenchSpec, file: Path) -> tuple[VideoRequest, ...]:
    """The videos of the prompts in a file, named by their places there: a prompt may be longer than a file's name.

    Raises:
        SuiteError: the file cannot be read, or holds no prompts, or fewer than asked for.
    """
    prompts = read_prompt_file(file)
    if vbench.prompt_count is not None and len(prompts) < vbench.prompt_count:
        raise SuiteError(f"{file} holds {len(prompts)} prompts where vbench.prompt_count is {vbench.prompt_count}")
    return tuple(
        VideoRequest(f"{place:04d}-{index}", prompt, index, seed_of(prompt, index, vbench.seed))
        for place, prompt in enumerate(prompts[: vbench.prompt_count])
        for index in range(vbench.samples_per_prompt or 1)
    )


def drawn_captions(number: int) -> list[str]:
    """Sentences of one thing and of two in turn, each once, of combinations that training draws."""
    found: dict[str, None] = {}
    places = count()
    while len(found) < number:
        place = next(places)
        (scene,) = choose_scenes(1, "train", things=1 + place % 2, skip=FIRST_SCENE + place // 2)
        found.setdefault(scene.caption)
    return [*found]


def drawn_origins(number: int, first_index: int = DRAWN_INDEX) -> dict[str, Origin]:
    """Clips of the image-to-video world by caption, each once: held-out groups and all actions in turn."""
    found: dict[str, Origin] = {}
    origins = ((action, group, index) for index in count(first_index) for group in TEST_GROUPS for action in ACTIONS)
    while len(found) < number:
        origin = next(origins)
        found.setdefault(draw_clip(*origin).caption, origin)
    return found


def prompts_of_part(prompts: Iterable[str], part: str) -> frozenset[str]:
    """One part, such as `3/16`, of the prompts in the order of their hashes: random, and always the same."""
    number, parts = map(int, part.split("/"))
    order = sorted({*prompts}, key=lambda prompt: seed_of(prompt, parts))
    return frozenset(order[number - 1 :: parts])


def images_folder(data: Path) -> Path:
    """Where the first frames of drawn clips are kept."""
    return data / f"first-frames-{WORLD_VERSION}-{DRAWN_INDEX}"


def write_images(vbench: VBenchSpec, videos: Sequence[VideoRequest]) -> None:
    """Draw the first frames that are not there yet."""
    images = {video.prompt: video.image for video in videos if video.image is not None}
    if all(path.is_file() for path in images.values()):
        return
    origins = drawn_origins(vbench.prompt_count or 0)
    for caption, path in images.items():
        with replacing(path) as partial:
            Image.fromarray(draw_clip(*origins[caption]).frames[0]).save(partial)


def check_images(videos: Iterable[VideoRequest], ratio: str) -> None:
    """Refuse images that are missing or no crops of a ratio such as `16-9`; damaged ones are left to the reading.

    Raises:
        SuiteError: with a few of them and their sizes.
    """
    width, height = map(int, ratio.split("-"))
    other = []
    for path in dict.fromkeys(video.image for video in videos if video.image is not None):
        if not path.is_file():
            other.append(f"{path} (missing)")
            continue
        with suppress(UnidentifiedImageError, OSError), Image.open(path) as image:
            if abs(image.width * height / (image.height * width) - 1) > SHAPE_TOLERANCE:
                other.append(f"{path} ({image.width}x{image.height})")
    if other:
        raise SuiteError(
            f"{len(other)} images are missing or no crops of {ratio}: {few(other)}: set vbench.ratio, or get data/crop"
            " again"
        )


def real_videos(vbench: VBenchSpec, videos: Sequence[VideoRequest]) -> tuple[VideoRequest, ...]:
    """Those that have a drawn clip of their own: of an image only one, whatever the number of samples."""
    return tuple(video for video in videos if vbench.mode == "t2v" or video.index == 0)


def drawn_frames(vbench: VBenchSpec, videos: Sequence[VideoRequest]) -> list[NDArray[np.uint8]]:
    """The drawn clip T H W C uint8 that shows what each video should."""
    if vbench.mode == "t2v":
        return [draw_scene(parse_caption(video.prompt), video.seed).frames for video in videos]
    origins = drawn_origins(vbench.prompt_count or 0)
    return [draw_clip(*origins[video.prompt]).frames for video in videos]


def clip_requests(videos: Sequence[VideoRequest], height: int, width: int) -> list[ClipRequest]:
    """The same as models take them; an image is read once for all its samples.

    Raises:
        UnreadablePictureError: an image cannot be read.
    """
    paths = dict.fromkeys(video.image for video in videos if video.image is not None)
    images: dict[Path | None, NDArray[np.uint8]] = {
        path: resize_clip(read_picture(path)[None], width, height)[0] for path in paths
    }
    return [ClipRequest(video.name, video.seed, images.get(video.image), video.prompt) for video in videos]
