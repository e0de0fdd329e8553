"""A folder of videos made elsewhere: which files are scored, and what must be true of them first."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vdmini_bench.data.timeline import Timeline
from vdmini_bench.data.ucf101 import VideoFile
from vdmini_bench.errors import SuiteError
from vdmini_bench.system.files import sha256_of

SUFFIXES = (".avi", ".mp4", ".mkv", ".mov", ".webm", ".m4v", ".gif")


@dataclass(frozen=True)
class VideoFolder:
    """The videos of a folder and its subfolders in the order of their paths, and how many other files there are."""

    root: Path
    videos: tuple[VideoFile, ...]
    others: int


def list_videos(root: Path) -> VideoFolder:
    """Find the videos under a folder: of a known suffix, in it and in all folders below, none of them hidden.

    A video's label is the folder it is in. Links are followed to files inside the folder only.

    Raises:
        SuiteError: there is no such folder, or it holds no video, a link that leaves it, or what is no file.
    """
    if not root.is_dir():
        raise SuiteError(f"{root}: no such folder" if not root.exists() else f"{root} is a file: give its folder")
    inside = root.resolve()
    videos, others = [], 0
    try:
        for folder, names, files in os.walk(root, onerror=_refuse):
            here = Path(folder)
            for name in names:
                if (here / name).is_symlink():
                    _check_link(here / name, inside)
            # Links to folders are not followed, and hidden folders hold caches and thumbnails.
            names[:] = sorted(name for name in names if not name.startswith("."))
            for name in sorted(files):
                path = here / name
                if name.startswith(".") or path.suffix.lower() not in SUFFIXES:
                    others += 1
                    continue
                if path.is_symlink():
                    _check_link(path, inside)
                if not path.is_file():
                    raise SuiteError(f"{path} is neither a file nor a folder: remove it")
                relative = str(path.relative_to(root))
                if any("\ud800" <= letter <= "\udfff" for letter in relative):
                    raise SuiteError(f"{relative!a} in {root} has a name that is not Unicode: rename it")
                videos.append(VideoFile(str(Path(relative).parent), relative, path))
    except OSError as error:
        raise SuiteError(f"{root} cannot be listed ({error})") from error
    if not videos:
        raise SuiteError(
            f"{root} holds no videos ({', '.join(SUFFIXES)}), here or in its folders; it has {others} other files"
        )
    return VideoFolder(root, tuple(sorted(videos, key=lambda video: video.relative)), others)


def count_copies(videos: Sequence[VideoFile]) -> int:
    """How many videos have the bytes of one before them; only those of equal size are read."""
    paths = [video.path for video in videos]
    sizes = Counter(map(_size, paths))
    alike = [path for path in paths if _size(path) and sizes[_size(path)] > 1]
    return len(alike) - len({*map(_content, alike)})


def copies_of(videos: Sequence[Path], others: Sequence[Path]) -> list[Path]:
    """The videos that have the bytes of one of the others; only those of equal size are read."""
    sizes = {*map(_size, others)}
    alike = [path for path in videos if _size(path) and _size(path) in sizes]
    sizes = {*map(_size, alike)}
    contents = {_content(path) for path in others if _size(path) in sizes}
    return [path for path in alike if _content(path) in contents]


def check_apart(one: Path, other: Path) -> None:
    """Refuse two sides of which one folder is inside the other: its videos would be on both.

    Raises:
        SuiteError: with both names.
    """
    for inner, outer in ((one, other), (other, one)):
        if inner.is_dir() and outer.resolve() in inner.resolve().parents:
            raise SuiteError(
                f"{inner} is inside {outer}, whose videos would be its own too: move it out, or give a folder beside it"
            )


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        # The reading names it.
        return 0


def _content(path: Path) -> str:
    try:
        return sha256_of(path)
    except OSError:
        # The reading names it.
        return str(path)


def rate_of(timeline: Timeline) -> str:
    if timeline.even:
        return f"{float(timeline.frames_per_second):.4g}"
    least, greatest = (1000 * gap for gap in timeline.gaps)
    return f"a variable rate, from {least:.4g} to {greatest:.4g} ms between frames"


def _check_link(path: Path, inside: Path) -> None:
    target = path.resolve()
    if not target.exists():
        raise SuiteError(f"{path} is a link to {target}, which is not there: remove it")
    if not target.is_relative_to(inside):
        raise SuiteError(f"{path} is a link out of the folder, to {target}: copy what it names, or score that folder")


def _refuse(error: OSError) -> None:
    raise error
