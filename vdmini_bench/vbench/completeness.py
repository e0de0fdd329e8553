"""Whether a folder holds the videos that the protocol asks for: what is missing, extra, doubly there or unreadable."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vdmini_bench.assets import sha256_of
from vdmini_bench.datasets.video import UnreadableVideoError
from vdmini_bench.errors import BenchError, ExitCode
from vdmini_bench.progress import progress
from vdmini_bench.store import write_atomically

SUFFIXES = (".mp4", ".gif")
# Videos that the official code does not read, nor those with a suffix in capitals; other files are of no concern.
OTHER_SUFFIXES = (".avi", ".mkv", ".mov", ".webm")
# A video's consistency is that of its frames with the one before.
FEWEST_FRAMES = 2
SHOWN = 20


@dataclass(frozen=True)
class VideoFile:
    """A video as it was when it was checked: all its frames were decoded."""

    file: str
    size: int
    modified_ns: int
    sha256: str
    frames: int


@dataclass(frozen=True)
class Completeness:
    """What a folder has for what was asked; only `missing`, `duplicate` and `unreadable` stand in the way of scores.

    `videos` maps names to the files to score; `identical` lists videos of unlike names and the same bytes.
    """

    videos: dict[str, Path]
    files: dict[str, VideoFile]
    missing: tuple[str, ...]
    extra: tuple[str, ...]
    duplicate: tuple[str, ...]
    unreadable: tuple[str, ...]
    identical: tuple[str, ...]

    @property
    def complete(self) -> bool:
        """Whether everything asked for is there, once, and can be read."""
        return not (self.missing or self.duplicate or self.unreadable)

    def to_json(self) -> dict[str, Any]:
        """As plain JSON data: every list in full."""
        kinds = ("missing", "extra", "duplicate", "unreadable", "identical")
        return {"videos": len(self.videos), **{kind: list(getattr(self, kind)) for kind in kinds}}

    def describe(self, record: Path) -> str:
        """What is wrong or worth a look, the first of each kind by name; `record` has all of them."""
        lines = []
        for kind, found in self.to_json().items():
            if kind != "videos" and found:
                more = [f"  ... and {len(found) - SHOWN} more, see {record}"] if len(found) > SHOWN else []
                lines += [f"{len(found)} {kind}:", *(f"  {item}" for item in found[:SHOWN]), *more]
        return "\n".join(lines)


class IncompleteVideosError(BenchError):
    """Videos that the protocol asks for are not there as it wants them, so nothing was scored."""

    exit_code = ExitCode.INCOMPLETE


def check_videos(
    folder: Path,
    wanted: Sequence[str] | None,
    known: Iterable[str] = (),
    earlier: Mapping[str, VideoFile] | None = None,
) -> Completeness:
    """Compare a folder with the names wanted, without suffix, and decode every video among them.

    All its videos are wanted when `wanted` is None. Names in `known` belong to the suite though not to what is scored
    now, and are not extra. `earlier` is what an earlier check found: files that have not changed are not read again.

    Raises:
        IncompleteVideosError: the folder cannot be listed, or holds no video.
    """
    try:
        listed = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    except OSError as error:
        raise IncompleteVideosError(f"{folder} cannot be listed ({error}): give the folder with the videos") from error
    by_name: dict[str, list[Path]] = {}
    for path in listed:
        if path.suffix in SUFFIXES:
            by_name.setdefault(path.stem, []).append(path)
    others = [path.name for path in listed if path.suffix not in SUFFIXES]
    strange = [name for name in others if name.lower().endswith((*SUFFIXES, *OTHER_SUFFIXES))]
    if not by_name:
        hint = f"; {len(strange)} files such as {strange[0]} are of another kind: convert them" if strange else ""
        raise IncompleteVideosError(f"{folder} holds no {' or '.join(SUFFIXES)} videos{hint}")
    names = [*by_name] if wanted is None else [*dict.fromkeys(wanted)]
    known_names = {*names, *known}
    there = {name: by_name[name] for name in names if name in by_name}
    files, unreadable = _read_all({name: paths[0] for name, paths in there.items()}, earlier or {})
    return Completeness(
        videos={name: there[name][0] for name in files},
        files=files,
        missing=tuple(name for name in names if name not in by_name),
        extra=(*(path.name for name, paths in by_name.items() if name not in known_names for path in paths), *strange),
        duplicate=tuple(" and ".join(path.name for path in paths) for paths in there.values() if len(paths) > 1),
        unreadable=unreadable,
        identical=_identical(files),
    )


def read_record(file: Path) -> dict[str, VideoFile]:
    """What `write_record` wrote; nothing where there is no such file or it is damaged."""
    try:
        return {name: VideoFile(**entry) for name, entry in json.loads(file.read_text(encoding="utf-8")).items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def write_record(file: Path, files: Mapping[str, VideoFile]) -> None:
    """Keep what was found in the videos, by name."""
    write_atomically(file, json.dumps({name: asdict(found) for name, found in files.items()}, indent=1))


def count_frames(path: Path) -> int:
    """Decode a whole video and count its frames.

    Raises:
        UnreadableVideoError: it cannot be opened, or a frame of it cannot be decoded.
    """
    import av

    try:
        with av.open(str(path), "r") as container:
            if not container.streams.video or container.streams.video[0].codec_context is None:
                raise UnreadableVideoError(path, "no video stream")
            stream = container.streams.video[0]
            # By default FFmpeg paints over what it cannot decode, and a damaged file reads as a good one.
            stream.codec_context.options = {"err_detect": "explode"}
            return sum(1 for _ in container.decode(stream))
    except (av.FFmpegError, OSError) as error:
        raise UnreadableVideoError(path, f"cannot be decoded ({error})") from error


def _read_all(
    paths: Mapping[str, Path], earlier: Mapping[str, VideoFile]
) -> tuple[dict[str, VideoFile], tuple[str, ...]]:
    found: dict[str, VideoFile] = {}
    problems = []
    with progress("check videos", len(paths)) as advance:
        for name, path in paths.items():
            status = path.stat()
            as_now = (path.name, status.st_size, status.st_mtime_ns)
            before = earlier.get(name)
            if before is not None and (before.file, before.size, before.modified_ns) == as_now:
                found[name] = before
            else:
                try:
                    frames = count_frames(path)
                    if frames < FEWEST_FRAMES:
                        raise UnreadableVideoError(path, f"{frames} frames where {FEWEST_FRAMES} are needed")
                    found[name] = VideoFile(*as_now, sha256_of(path), frames)
                except UnreadableVideoError as problem:
                    problems.append(f"{path.name}: {problem.reason}")
            advance()
    return found, tuple(problems)


def _identical(files: Mapping[str, VideoFile]) -> tuple[str, ...]:
    by_content: dict[str, list[str]] = {}
    for found in files.values():
        by_content.setdefault(found.sha256, []).append(found.file)
    return tuple(" = ".join(names) for names in by_content.values() if len(names) > 1)
