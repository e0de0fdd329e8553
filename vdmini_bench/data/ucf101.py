"""UCF101 on disk: its folder layout, its split lists, and the choice of clips by class and seed."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vdmini_bench.errors import SuiteError
from vdmini_bench.system.files import sha256_of, write_atomically
from vdmini_bench.system.text_files import read_text

VIDEO_FOLDER = "UCF-101"
LIST_FOLDER = "ucfTrainTestlist"
ENTRY = re.compile(r"[^/\\\0\s]+/[^/\\\0\s]+\.(avi|mp4)")
# The class that a clip's own name says.
NAMED = re.compile(r"v_(?P<label>.+)_g\d+_c\d+\.")


@dataclass(frozen=True)
class VideoFile:
    """One video of the data set: its class and its path relative to the video folder, as the split lists write it."""

    label: str
    relative: str
    path: Path

    @property
    def words(self) -> str:
        """Its class as words: "apply eye makeup" for ApplyEyeMakeup."""
        return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", self.label).lower()


@dataclass(frozen=True)
class UcfSplit:
    """The training and test videos of one split, each in sorted order."""

    train: tuple[VideoFile, ...]
    test: tuple[VideoFile, ...]


def read_split(root: Path, split: str) -> UcfSplit:
    """Read split `01`, `02` or `03` of the data set under `root`; the files themselves are opened later.

    Raises:
        SuiteError: a list is missing, empty or malformed, or has a clip in another class than its own (with file:line).
    """
    return UcfSplit(_read_list(root, f"trainlist{split}.txt"), _read_list(root, f"testlist{split}.txt"))


def choose_balanced(videos: Sequence[VideoFile], count: int, seed: int) -> list[VideoFile]:
    """Choose `count` distinct videos, the classes as equal as can be: shuffled within each class, then dealt in turn.

    The first n of a longer choice are the shorter choice, and each run of as many videos as there are classes holds
    every class once while none has run out.

    Raises:
        SuiteError: there are fewer videos than asked for.
    """
    if count > len(videos):
        raise SuiteError(
            f"{count} clips asked for where the data set has {len(videos)}; lower clips_per_block or blocks"
        )
    by_class: dict[str, list[VideoFile]] = {}
    for video in sorted(videos, key=lambda video: video.relative):
        by_class.setdefault(video.label, []).append(video)
    random = np.random.default_rng(seed)
    columns = [[members[i] for i in random.permutation(len(members))] for _, members in sorted(by_class.items())]
    longest = max(len(column) for column in columns)
    dealt = [column[turn] for turn in range(longest) for column in columns if turn < len(column)]
    return dealt[:count]


def content_digest(videos: Sequence[VideoFile], index: Path, remember: bool = True) -> str:
    """A digest of the videos' names and bytes; `index` remembers the hash of every file of unchanged size and times.

    The time of the last change counts too, which no tool sets back. Without `remember` nothing is written.
    """
    try:
        known: dict[str, list[object]] = json.loads(index.read_text())
    except (OSError, ValueError):
        known = {}
    fresh: dict[str, list[object]] = {}
    for video in videos:
        try:
            status = video.path.stat()
        except OSError:
            fresh[video.relative] = [0, 0, 0, "missing"]
            continue
        remembered = known.get(video.relative)
        state: list[object] = [status.st_size, status.st_mtime_ns, status.st_ctime_ns]
        if remembered is not None and remembered[:-1] == state:
            fresh[video.relative] = remembered
        else:
            fresh[video.relative] = [*state, sha256_of(video.path)]
    if remember and fresh != known:
        write_atomically(index, json.dumps(fresh, sort_keys=True))
    names_and_bytes = [(name, entry[-1]) for name, entry in sorted(fresh.items())]
    return hashlib.sha256(json.dumps(names_and_bytes).encode()).hexdigest()


def _read_list(root: Path, name: str) -> tuple[VideoFile, ...]:
    path = root / LIST_FOLDER / name
    if not path.is_file():
        raise SuiteError(f"{path}: no such split list; unpack UCF101TrainTestSplits-RecognitionTask.zip beside UCF-101")
    videos, there, numbers = [], _files_by_name(root / VIDEO_FOLDER), _class_numbers(path.with_name("classInd.txt"))
    for place, line in enumerate(read_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        # Lists that were made on Windows have its separator.
        entry, *number = line.split()
        relative = entry.replace("\\", "/")
        label = relative.partition("/")[0]
        if not ENTRY.fullmatch(relative) or label in (".", ".."):
            raise SuiteError(f"{path}:{place}: expected Class/v_Class_gNN_cMM.avi, found {line!r}")
        named = NAMED.match(relative.rpartition("/")[2])
        if named and named["label"].casefold() != label.casefold():
            raise SuiteError(
                f"{path}:{place}: {relative} is a clip of {named['label']} among {label}: correct the line"
            )
        if number and numbers.get(label.casefold(), number[0]) != number[0]:
            raise SuiteError(
                f"{path}:{place}: {label} is class {numbers[label.casefold()]} in classInd.txt, and {number[0]} here:"
                " take both from one archive"
            )
        file = there.get(relative) or there.get(relative.casefold()) or root / VIDEO_FOLDER / relative
        videos.append(VideoFile(label, relative, file))
    if not videos:
        raise SuiteError(f"{path}:1: the list is empty")
    # A line given twice is one clip.
    return tuple(sorted(set(videos), key=lambda video: video.relative))


def _class_numbers(index: Path) -> dict[str, str]:
    """The number of each class, by its name in small letters; none where there is no such file."""
    lines = read_text(index).split("\n") if index.is_file() else []
    return {words[1].casefold(): words[0] for words in map(str.split, lines) if len(words) == 2}


def _files_by_name(folder: Path) -> dict[str, Path]:
    """The files of the class folders, as lists name them, and by the same names in small letters.

    Copies of the data set differ in capitals: HandStandPushups or HandstandPushups, .avi or .AVI.
    """
    exact = {path.relative_to(folder).as_posix(): path for path in sorted(folder.glob("*/*"))}
    return {name.casefold(): path for name, path in exact.items()} | exact
