"""Whether a folder holds the videos that the protocol asks for: what is missing, extra, doubly there or unreadable."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vdmini_bench.data.video import frame_sizes, has_cover_picture
from vdmini_bench.errors import BenchError, ExitCode, SuiteError, UnreadableVideoError
from vdmini_bench.system.files import sha256_of, write_atomically
from vdmini_bench.system.progress import progress

SUFFIXES = (".mp4", ".gif")
# Videos that the official code does not read, nor those with a suffix in capitals; other files are of no concern.
ALL_SUFFIXES = (*SUFFIXES, ".avi", ".m4v", ".mkv", ".mov", ".webm")
# A video's consistency is that of its frames with the one before.
FEWEST_FRAMES = 2
SHOWN = 20


@dataclass(frozen=True)
class VideoFile:
    """A video as it was when it was checked: all its frames were decoded; `side` is the shorter one in pixels.

    `cover`: it has a cover picture too.
    """

    file: str
    size: int
    modified_ns: int
    changed_ns: int
    sha256: str
    frames: int
    side: int
    cover: bool


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

    @property
    def contents(self) -> dict[str, str]:
        """The sha256 of every video by file name."""
        return {found.file: found.sha256 for found in self.files.values()}

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

    All its videos are wanted when `wanted` is None, those of another kind too, which are unreadable then. Names in
    `known` belong to the suite though not to what is scored now, and are not extra. `earlier` is what an earlier
    check found: files that have not changed are not read again.

    Raises:
        SuiteError: the folder cannot be listed.
        IncompleteVideosError: it holds no video.
    """
    try:
        listed = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise SuiteError(f"{folder} cannot be listed ({error.strerror}): give the folder with the videos") from error
    by_name: dict[str, list[Path]] = {}
    for path in listed:
        if path.suffix in SUFFIXES:
            by_name.setdefault(_composed(path.stem), []).append(path)
    strange = [path for path in listed if path.suffix not in SUFFIXES and path.suffix.lower() in ALL_SUFFIXES]
    if not by_name:
        hint = f"; {len(strange)} others such as {strange[0].name}: {_remedy(strange[0])}" if strange else ""
        raise IncompleteVideosError(f"{folder} holds no {' or '.join(SUFFIXES)} videos{hint}")
    names = [*by_name] if wanted is None else [*dict.fromkeys(wanted)]
    known_names = {_composed(name) for name in (*names, *known)}
    there = {name: by_name[_composed(name)] for name in names if _composed(name) in by_name}
    files, unreadable = _read_all({name: paths[0] for name, paths in there.items()}, earlier or {}, folder.resolve())
    extra = [path for name, paths in by_name.items() if name not in known_names for path in paths]
    if wanted is None:
        unreadable += tuple(f"{_shown(path)}: {_remedy(path)}" for path in strange)
    else:
        extra += strange
    return Completeness(
        videos={name: there[name][0] for name in files},
        files=files,
        missing=tuple(name for name in names if name not in there),
        extra=tuple(_shown(path) for path in extra),
        duplicate=tuple(" and ".join(_shown(path) for path in paths) for paths in there.values() if len(paths) > 1),
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


def sha256_of_video(folder: Path, video: VideoFile) -> str:
    """A video's content as it is now, read again only where its file has changed; as it was, where it is gone."""
    path = folder / video.file
    if not path.is_file() or _state(path) == (video.file, video.size, video.modified_ns, video.changed_ns):
        return video.sha256
    return sha256_of(path)


def measure_video(path: Path) -> tuple[int, int]:
    """Decode a whole video: its number of frames, 0 or more, and their shorter side in pixels.

    A file that only says where frames are to be found elsewhere is not followed.

    Raises:
        UnreadableVideoError: it cannot be opened, a frame of it cannot be decoded, or its frames change size.
    """
    sizes = frame_sizes(path)
    if len(sizes) > 1:
        raise UnreadableVideoError(path, "its frames change size")
    return sizes.total(), min(map(min, sizes), default=0)


def _read_all(
    paths: Mapping[str, Path], earlier: Mapping[str, VideoFile], inside: Path
) -> tuple[dict[str, VideoFile], tuple[str, ...]]:
    found: dict[str, VideoFile] = {}
    problems = []
    with progress("check videos", len(paths)) as advance:
        for name, path in paths.items():
            try:
                found[name] = _read_one(path, earlier.get(name), inside)
            except UnreadableVideoError as problem:
                problems.append(f"{_shown(path)}: {problem.reason}")
            advance()
    return found, tuple(problems)


def _read_one(path: Path, before: VideoFile | None, inside: Path) -> VideoFile:
    _require_file(path, inside)
    as_now = _state(path)
    if before is not None and (before.file, before.size, before.modified_ns, before.changed_ns) == as_now:
        return before
    if path.stat().st_size == 0:
        raise UnreadableVideoError(path, "the file is empty")
    frames, side = measure_video(path)
    if frames < FEWEST_FRAMES:
        raise UnreadableVideoError(path, f"{frames} frames where {FEWEST_FRAMES} are needed")
    return VideoFile(*as_now, sha256_of(path), frames, side, has_cover_picture(path))


def _state(path: Path) -> tuple[str, int, int, int]:
    """What tells whether a file has changed; no tool sets the last of the times back, as copying does the other."""
    status = path.stat()
    return path.name, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _require_file(path: Path, inside: Path) -> None:
    if _shown(path) != path.name:
        raise UnreadableVideoError(path, "its name is not Unicode: rename it")
    try:
        target = path.resolve(strict=True)
    except (OSError, RuntimeError) as error:
        raise UnreadableVideoError(path, "a link to nothing: remove it") from error
    if path.is_symlink() and not target.is_relative_to(inside):
        raise UnreadableVideoError(path, f"a link out of the folder, to {target}: copy what it names")
    if not target.is_file():
        raise UnreadableVideoError(path, "it is no file")


def _remedy(path: Path) -> str:
    if path.suffix.lower() in SUFFIXES:
        return f"the official code wants {path.suffix.lower()} in small letters: rename it"
    return f"the official code reads {' and '.join(SUFFIXES)}: convert it"


def _composed(name: str) -> str:
    # Some file systems store an accent as a letter of its own.
    return unicodedata.normalize("NFC", name)


def _shown(path: Path) -> str:
    return path.name.encode(errors="backslashreplace").decode()


def _identical(files: Mapping[str, VideoFile]) -> tuple[str, ...]:
    by_content: dict[str, list[str]] = {}
    for found in files.values():
        by_content.setdefault(found.sha256, []).append(found.file)
    return tuple(" = ".join(names) for names in by_content.values() if len(names) > 1)
