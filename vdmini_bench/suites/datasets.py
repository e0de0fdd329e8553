"""The data set of a suite: where it lies, drawing the stand-in, and the digest of its clips."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from vdmini_bench.assets.cache import asset_path
from vdmini_bench.config.suite import DatasetSpec
from vdmini_bench.data.synthetic import WORLD_VERSION, clip_count, write_dataset
from vdmini_bench.data.ucf101 import VideoFile, content_digest
from vdmini_bench.results.store import Store
from vdmini_bench.system.progress import progress, say

DRAWN = "drawn.txt"


def digest_videos(videos: tuple[VideoFile, ...], store: Store, root: Path, name: str, remember: bool = True) -> str:
    """Digest the order and the bytes of videos under `root`; the store remembers what each file's are."""
    found = order_and_content(videos, store, root, f"-{name}", remember)
    return hashlib.sha256(found.encode()).hexdigest()


def order_and_content(
    videos: Sequence[VideoFile], store: Store, root: Path, name: str = "", remember: bool = True
) -> str:
    """The digests of the order and of the bytes of videos, end to end; `name` ends that of the store's file of them."""
    place = hashlib.sha256(str(root.resolve()).encode(errors="surrogateescape")).hexdigest()[:8]
    order = hashlib.sha256("\n".join(video.relative for video in videos).encode(errors="surrogateescape")).hexdigest()
    return order + content_digest(videos, store.root / "data" / f"index-{place}{name}.json", remember)


def dataset_root(dataset: DatasetSpec, store: Store) -> Path | None:
    """Where the data set lies or will lie; None when the real one was not imported."""
    if dataset.kind == "ucf101":
        return asset_path("ucf101")
    return store.root / "data" / f"drawn-{WORLD_VERSION}-{dataset.drawn_train_per_group}-{dataset.drawn_test_per_group}"


def drawing_of(dataset: DatasetSpec, store: Store) -> list[str]:
    """What is still to be drawn, in words; nothing of real clips."""
    root = dataset_root(dataset, store)
    if dataset.kind == "ucf101" or root is None or (root / DRAWN).exists():
        return []
    clips = clip_count(dataset.drawn_train_per_group, dataset.drawn_test_per_group)
    return [f"draw {clips} clips (about {clips * 0.01:.0f} s)"]


def draw_dataset(dataset: DatasetSpec, store: Store) -> None:
    """Draw the stand-in data set unless it is there; the marker of completeness is written last."""
    root = dataset_root(dataset, store)
    if root is None or not drawing_of(dataset, store):
        return
    counts = (dataset.drawn_train_per_group, dataset.drawn_test_per_group)
    with progress("draw clips", clip_count(*counts)) as advance:
        write_dataset(root, *counts, on_clip=advance)
    (root / DRAWN).write_text("complete\n")
    say(f"drew {clip_count(*counts)} clips into {root}")
