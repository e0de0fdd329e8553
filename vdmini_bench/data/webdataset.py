"""Training clips from .tar shards in WebDataset's layout, read in place: nothing is unpacked."""

from __future__ import annotations

import json
import os
import re
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from glob import has_magic
from pathlib import Path

from vdmini_bench.data.captioned import CaptionedVideo, CaptionedVideos, ClipFormat, Member, leave_out
from vdmini_bench.data.remote_files import fetched, is_remote
from vdmini_bench.errors import SuiteError, UnreadableVideoError
from vdmini_bench.system.text_files import decode_text

VIDEO_SUFFIXES = ("mp4", "avi", "mkv", "webm")
RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")
# A caption is a few lines: a larger member is something else, and would have to be held in memory.
MOST_TEXT_BYTES = 1 << 20


def read_webdataset(pattern: str, format: ClipFormat, skip_unreadable: bool = False) -> CaptionedVideos:
    """The samples of the shards that a path, a glob or a range such as `train-{000000..000012}.tar` names, in order.

    An address such as `s3://bucket/train-*.tar` names shards elsewhere, which are copied first.

    A sample is the members of a shard that share a name up to its first dot: one video (.mp4, .avi, .mkv, .webm) with
    a caption, the .txt or else `caption` in the .json. A clip is named by its shard, relative to the folder that all
    shards are in, and its sample. Only the headers and captions are read here, once. With `skip_unreadable` samples
    that lack a video or caption, or have one twice, are left out, and named on stderr.

    Raises:
        SuiteError: no shard, or one that is missing, compressed, truncated or no tar.
        IncompleteError: there are such samples, each named with its shard.
    """
    shards = _shards(pattern)
    parent = Path(os.path.commonpath([shard.parent for shard in shards]))
    videos = []
    problems = []
    for shard in shards:
        for key, members in _samples(shard).items():
            try:
                name = f"{shard.relative_to(parent).as_posix()}/{key}"
                videos.append(_video_of(name, shard, members))
            except SuiteError as problem:
                problems.append(UnreadableVideoError(shard, f"sample {key!r}: {problem}"))
    leave_out(problems, len(videos), skip_unreadable)
    if not videos:
        raise SuiteError(f"{pattern}: the shards hold no samples: give shards with key.mp4 and key.txt in them")
    return CaptionedVideos(tuple(videos), format)


def _shards(pattern: str) -> list[Path]:
    shards = []
    for text in _expand(pattern):
        if is_remote(text):
            shards += fetched(text)
            continue
        expanded = Path(text)
        found = [expanded]
        # A range says what must be there, a glob what may be.
        if has_magic(str(expanded)) and not expanded.is_file():
            root = Path(expanded.anchor)
            try:
                found = sorted(root.glob(str(expanded.relative_to(root))))
            except ValueError as error:
                raise SuiteError(f"{pattern!r}: {error}") from error
        missing = [shard for shard in found if not shard.is_file()]
        if missing or not found:
            raise SuiteError(f"{missing[0] if missing else expanded}: no such shard: correct the pattern {pattern!r}")
        shards += found
    if len({*shards}) < len(shards):
        raise SuiteError(f"{pattern!r} names a shard twice: give each once")
    return shards


def _expand(pattern: str) -> Iterator[str]:
    """The pattern with each number of its ranges, with as many digits as the range is written with."""
    found = RANGE.search(pattern)
    if found is None:
        yield pattern
        return
    first, last = found.groups()
    if int(last) < int(first):
        raise SuiteError(f"{pattern!r}: the range {found.group()} runs backwards")
    for number in range(int(first), int(last) + 1):
        yield from _expand(f"{pattern[: found.start()]}{number:0{len(first)}d}{pattern[found.end() :]}")


@dataclass(frozen=True)
class _Member(Member):
    # What a caption may be in; empty for a video.
    content: bytes


def _samples(shard: Path) -> dict[str, list[tuple[str, _Member]]]:
    """The suffixes and members of each sample, in the order of the shard."""
    samples: dict[str, list[tuple[str, _Member]]] = {}
    try:
        with tarfile.open(shard, "r:") as tar:
            for entry in tar:
                folder, _, file = entry.name.rpartition("/")
                stem, _, suffix = file.partition(".")
                if entry.isdir() or not stem or not suffix:
                    # A folder, a hidden file, or one beside the samples such as a README.
                    continue
                if not entry.isreg() or entry.issparse():
                    raise SuiteError(f"{shard}: {entry.name!r} is a link or another special file: pack plain files")
                suffix = suffix.lower()
                content = b""
                if suffix in ("txt", "json"):
                    extracted = tar.extractfile(entry)
                    assert extracted is not None
                    content = extracted.read(MOST_TEXT_BYTES + 1)
                member = _Member(entry.name, entry.offset_data, entry.size, content)
                key = f"{folder}/{stem}" if folder else stem
                samples.setdefault(key, []).append((suffix, member))
            _check_end(shard, tar.offset)
    except (tarfile.TarError, OSError, EOFError, ValueError) as error:
        raise SuiteError(f"{shard} is no whole .tar ({error}): fetch or pack it again, uncompressed") from error
    return samples


def _check_end(shard: Path, end: int) -> None:
    """Refuse a shard whose end is not marked: tarfile is silent where it takes a damaged header for the end."""
    with shard.open("rb") as file:
        file.seek(end)
        if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise SuiteError(f"{shard}: truncated or damaged at byte {end}: fetch or pack it again")
        while rest := file.read(tarfile.RECORDSIZE):
            if rest.strip(b"\0"):
                raise SuiteError(f"{shard}: more follows its end at byte {end}: give joined shards one by one")


def _video_of(name: str, shard: Path, members: Sequence[tuple[str, _Member]]) -> CaptionedVideo:
    suffixes = [suffix for suffix, _ in members]
    twice = sorted({suffix for suffix in suffixes if suffixes.count(suffix) > 1})
    if twice:
        raise SuiteError(f"comes twice with .{twice[0]}: pack each sample once")
    videos = [member for suffix, member in members if suffix in VIDEO_SUFFIXES]
    if len(videos) != 1:
        there = ", ".join(f".{suffix}" for suffix in suffixes)
        raise SuiteError(f"{len(videos)} videos (it has {there}): pack one of .{', .'.join(VIDEO_SUFFIXES)}")
    caption = _caption_of(dict(members))
    if not videos[0].size:
        raise SuiteError("its video is empty: fetch it again")
    return CaptionedVideo(name, shard, caption, videos[0])


def _caption_of(members: dict[str, _Member]) -> str:
    if "txt" not in members and "json" not in members:
        raise SuiteError("no caption: pack a .txt, or a .json with `caption`, beside the video")
    suffix = "txt" if "txt" in members else "json"
    content = members[suffix].content
    if len(content) > MOST_TEXT_BYTES:
        raise SuiteError(f"its .{suffix} has {members[suffix].size} bytes: a caption has {MOST_TEXT_BYTES} at most")
    text = decode_text(content, f"its .{suffix}")
    try:
        caption = text if suffix == "txt" else json.loads(text)["caption"]
    except (ValueError, RecursionError, KeyError, TypeError) as error:
        raise SuiteError("its .json is no object with `caption`: add it, or pack a .txt") from error
    if not isinstance(caption, str) or not caption.strip():
        raise SuiteError(f"its caption is {caption!r}: write a text")
    return caption.strip()
