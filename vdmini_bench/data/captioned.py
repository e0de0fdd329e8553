"""Training clips from a folder of videos, with a file that says what each shows."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vdmini.conditioning.base import TrainingClip
from vdmini.latents import UnreadableClipError
from vdmini_bench.data.listed_rows import ListedRow, read_rows
from vdmini_bench.data.preprocessing import resize_clip
from vdmini_bench.data.video import read_frames
from vdmini_bench.errors import IncompleteError, SuiteError, UnreadableVideoError
from vdmini_bench.system.progress import say

# The last three are those of Hugging Face's video folders.
CAPTION_FILES = tuple(f"{stem}.{suffix}" for stem in ("captions", "metadata") for suffix in ("csv", "jsonl", "parquet"))
COLUMNS = {"file": ("file", "video", "path", "file_name"), "caption": ("caption", "text", "prompt")}
SHOWN_PROBLEMS = 10


@dataclass(frozen=True)
class ClipFormat:
    """What is read of each video: its first `frames` frames at `frames_per_second`, or at its own rate for None."""

    frames: int
    frames_per_second: float | None
    width: int
    height: int

    def fit(self, clip: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """T H W C uint8 frames at `width` x `height`, cut to that aspect ratio about their centre before resizing.

        `resize_clip` alone would squeeze a video of another aspect ratio.
        """
        height, width = clip.shape[1:3]
        # The largest window of the ratio wanted, as near as whole pixels come.
        cut_height = max(1, min(height, round(width * self.height / self.width)))
        cut_width = max(1, min(width, round(height * self.width / self.height)))
        top, left = (height - cut_height) // 2, (width - cut_width) // 2
        return resize_clip(clip[:, top : top + cut_height, left : left + cut_width], self.width, self.height)


@dataclass(frozen=True)
class Member:
    """Where the bytes of a video are inside a file."""

    name: str
    offset: int
    size: int


@dataclass(frozen=True)
class CaptionedVideo:
    """A video file, or a member of one, the name it is known by, and what it shows."""

    name: str
    path: Path
    caption: str
    member: Member | None = None


@dataclass(frozen=True)
class CaptionedVideos:
    """Videos as a source of training clips, in the order given; each clip's seed is its position."""

    videos: tuple[CaptionedVideo, ...]
    format: ClipFormat

    @property
    def names(self) -> Sequence[str]:
        return [video.name for video in self.videos]

    def clip(self, index: int) -> TrainingClip:
        """Read a clip; raises UnreadableClipError."""
        video = self.videos[index]
        path, file = video.path, None
        try:
            with video.path.open("rb") as whole:
                if (member := video.member) is not None:
                    whole.seek(member.offset)
                    path, file = path / member.name, io.BytesIO(whole.read(member.size))
                frames = read_frames(path, self.format.frames, self.format.frames_per_second, file=file or whole)
        except OSError as error:
            raise UnreadableClipError(video.name, f"{video.path}: {error.strerror}") from error
        except UnreadableVideoError as error:
            raise UnreadableClipError(video.name, str(error)) from error
        return TrainingClip(video.name, self.format.fit(frames), video.caption, seed=index)


def read_captioned(
    folder: Path, captions: Path | None, format: ClipFormat, skip_unreadable: bool = False
) -> CaptionedVideos:
    """The videos that a .csv, .jsonl or .parquet file lists, or the folder's only captions file for None.

    Its columns are `file` (or `video`, `path`, `file_name`), relative to the folder, and `caption` (or `text`,
    `prompt`); others are left alone. The videos are opened later. With `skip_unreadable` rows without a caption or
    whose video is missing or empty are left out, and named on stderr.

    Raises:
        SuiteError: the file cannot be read, or rows of it (with file:line) are malformed, name a video that is outside
            the folder or listed before.
        IncompleteError: rows lack a caption or their video.
    """
    if not folder.is_dir():
        raise SuiteError(f"{folder}: no such folder: give the one that the videos are in")
    path = captions or _only_captions(folder)
    rows = read_rows(path, COLUMNS)
    if not rows:
        raise SuiteError(f"{path}:1: it lists no videos: write a row for each, with file and caption")
    videos: dict[Path, CaptionedVideo] = {}
    lines: dict[Path, str] = {}
    problems = []
    lacking: list[UnreadableVideoError] = []
    root = folder.resolve()
    for row in rows:
        try:
            video = _video_of(row, folder, root)
            if video.path in videos:
                raise SuiteError(
                    f"{row.place}: {video.name} is listed before, at {lines[video.path]}: keep one of them"
                )
            videos[video.path], lines[video.path] = video, row.place
        except SuiteError as problem:
            problems.append(str(problem))
        except UnreadableVideoError as problem:
            lacking.append(problem)
    refuse(problems)
    leave_out(lacking, len(videos), skip_unreadable)
    return CaptionedVideos(tuple(videos.values()), format)


def leave_out(lacking: Sequence[UnreadableVideoError], left: int, skip_unreadable: bool) -> None:
    """Name on stderr what is left out, where that was asked for and others are `left`; else raise IncompleteError."""
    if lacking and not (skip_unreadable and left):
        raise IncompleteError(lacking)
    if lacking:
        say(f"warning: {len(lacking)} of {len(lacking) + left} clips are left out:\n{_listing([*map(str, lacking)])}")


def refuse(problems: Sequence[str]) -> None:
    """Raise SuiteError with the first of the problems and the number of the others, when there are any."""
    if problems:
        raise SuiteError(_listing(problems))


def _listing(problems: Sequence[str]) -> str:
    more = [f"and {len(problems) - SHOWN_PROBLEMS} more"] if len(problems) > SHOWN_PROBLEMS else []
    return "\n".join([*problems[:SHOWN_PROBLEMS], *more])


def _only_captions(folder: Path) -> Path:
    found = [folder / name for name in CAPTION_FILES if (folder / name).is_file()]
    if len(found) != 1:
        holds = f"holds {' and '.join(path.name for path in found)}" if found else "holds no captions"
        raise SuiteError(f"{folder} {holds}: name the captions file, or keep one of {', '.join(CAPTION_FILES)} there")
    return found[0]


def _video_of(row: ListedRow, folder: Path, root: Path) -> CaptionedVideo:
    for column, value in row.values.items():
        if not row.text(column):
            raise UnreadableVideoError(Path(row.place), f"the {column} is {value!r}: write a text")
    file, caption = row.text("file"), row.text("caption")
    try:
        path = (folder / file).resolve()
        there = path.is_file()
    except (OSError, ValueError, RuntimeError) as error:
        # Names that no file can have, and symlinks in a circle.
        raise SuiteError(f"{row.place}: {file!r} is no file name ({error})") from error
    if not path.is_relative_to(root):
        raise SuiteError(f"{row.place}: {file!r} is outside {folder}: move it there")
    if not there:
        reason = f"no video {file!r} in {folder}: correct the name, or remove the row"
        raise UnreadableVideoError(Path(row.place), reason)
    if not path.stat().st_size:
        raise UnreadableVideoError(Path(row.place), f"the video {file!r} is empty: replace it, or remove the row")
    return CaptionedVideo(path.relative_to(root).as_posix(), path, caption)
