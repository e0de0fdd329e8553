"""The clips that a VBench suite distils on: the drawn world's, with captions or in UCF101's layout, or a folder's."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from vdmini.latents import ClipSource
from vdmini_bench.config.suite import DatasetSpec
from vdmini_bench.config.vbench import CaptionedFolderSpec, VBenchProfile
from vdmini_bench.data.captioned import CaptionedVideos, ClipFormat, read_captioned
from vdmini_bench.data.captions import CAPTIONED_VERSION, choose_scenes, draw_scene
from vdmini_bench.data.synthetic import FRAMES_PER_SECOND
from vdmini_bench.data.ucf101 import VideoFile, choose_balanced, read_split
from vdmini_bench.data.video import write_whole
from vdmini_bench.errors import SuiteError
from vdmini_bench.results.store import Store
from vdmini_bench.suites.clip_selection import SEEDS
from vdmini_bench.suites.datasets import dataset_root, digest_videos, draw_dataset, drawing_of
from vdmini_bench.suites.training_clips import DatasetClips
from vdmini_bench.system.files import key_of, write_atomically
from vdmini_bench.system.progress import progress

CAPTIONS = "captions.jsonl"


@dataclass(frozen=True)
class TrainingData:
    """What gives the training clips, and the digest of all they are."""

    source: ClipSource
    digest: str


def training_data(profile: VBenchProfile, store: Store, *, write: bool, remember: bool = True) -> TrainingData | None:
    """Find a profile's training clips, or draw them where `write` says so; None for drawn ones that are not there yet.

    `remember` keeps the hashes of files in the store.

    Raises:
        SuiteError: there are fewer than asked for, or what lists them is wrong.
    """
    if isinstance(profile.dataset, DatasetSpec):
        return _of_classes(profile, profile.dataset, store, write, remember)
    if isinstance(profile.dataset, CaptionedFolderSpec):
        captions = None if profile.dataset.captions is None else Path(profile.dataset.captions)
        return _of_captions(profile, store, Path(profile.dataset.path), captions, remember)
    upright = profile.dataset.upright
    kind = "upright" if upright else "captioned"
    folder = store.root / "data" / f"{kind}-{CAPTIONED_VERSION}-{profile.train_clips}"
    if not (folder / CAPTIONS).exists():
        if not write:
            return None
        draw_captioned(folder, profile.train_clips, upright=upright)
    return _of_captions(profile, store, folder, folder / CAPTIONS, remember)


def draw_captioned(folder: Path, count: int, *, upright: bool) -> None:
    """Draw scenes for training as videos, and last the file with their captions, which says that all are there."""
    lines = []
    with progress("draw captioned clips", count) as advance:
        for place, scene in enumerate(choose_scenes(count, "train")):
            path = folder / f"{place:05d}.mkv"
            if not path.exists():
                write_whole(path, draw_scene(scene, place, upright=upright).frames, FRAMES_PER_SECOND)
            lines.append(json.dumps({"file": path.name, "caption": scene.caption}))
            advance()
    write_atomically(folder / CAPTIONS, "\n".join(lines) + "\n")


def _of_classes(
    profile: VBenchProfile, dataset: DatasetSpec, store: Store, write: bool, remember: bool
) -> TrainingData | None:
    root = dataset_root(dataset, store)
    assert root is not None
    if write:
        draw_dataset(dataset, store)
    if drawing_of(dataset, store):
        return None
    # The clips, and so the jobs, of a suite on UCF101 with the same settings.
    train = tuple(choose_balanced(read_split(root, dataset.split).train, dataset.train_clips, SEEDS["train"]))
    sample = profile.sample
    source = DatasetClips(train, profile.frames, profile.frames_per_second, sample.width, sample.height)
    return TrainingData(source, digest_videos(train, store, root, "train", remember))


def _of_captions(
    profile: VBenchProfile, store: Store, folder: Path, captions: Path | None, remember: bool
) -> TrainingData:
    sample = profile.sample
    format = ClipFormat(profile.frames, profile.frames_per_second, sample.width, sample.height)
    found = read_captioned(folder, captions, format).videos
    if len(found) < profile.train_clips:
        raise SuiteError(
            f"dataset: {folder} lists {len(found)} videos where dataset.train_clips is {profile.train_clips}: ask for"
            " fewer"
        )
    chosen = found[: profile.train_clips]
    files = tuple(VideoFile("", video.name, video.path) for video in chosen)
    listed = [(video.name, video.caption) for video in chosen]
    digest = key_of([listed, digest_videos(files, store, folder, "captioned", remember)])
    return TrainingData(CaptionedVideos(chosen, format), digest)
