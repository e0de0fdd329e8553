"""Read video files as clips, so that no unreadable file goes unnoticed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from vdmini_bench.data.preprocessing import Preprocessing, preprocess_clip
from vdmini_bench.data.video import read_frames
from vdmini_bench.errors import IncompleteError, UnreadableVideoError
from vdmini_bench.system.workers import in_order

Result = TypeVar("Result")


def _do_nothing() -> None:
    """What happens after each clip unless a reader is told; named, so that a reader can be sent to a process."""


@dataclass
class ClipReader:
    """Iterates over the frames of video files, T H W C uint8 each, and keeps the unreadable ones for `check`.

    `freeze` repeats the first frame: the clip a model without motion would make. With `workers` above 1 other processes
    decode, resize and measure; clips come in the order of `paths` all the same, and few are held at a time. A file
    that is not `trusted` is read only when it holds its own frames.
    """

    paths: Sequence[Path]
    frames: int
    frames_per_second: float | None
    width: int | None = None
    height: int | None = None
    freeze: bool = False
    on_clip: Callable[[], None] = _do_nothing
    problems: list[UnreadableVideoError] = field(default_factory=list)
    preprocessing: Preprocessing = "resize"
    offset_seed: int | None = None
    workers: int = 1
    trusted: bool = True

    def __len__(self) -> int:
        return len(self.paths)

    def __iter__(self) -> Iterator[NDArray[np.uint8]]:
        return self._results(self._alone().read)

    def with_measure(
        self, measure: Callable[[NDArray[np.uint8]], Result]
    ) -> Iterator[tuple[NDArray[np.uint8], Result]]:
        """The clips, each with what `measure` says of it, a function found by name: workers call it."""
        return self._results(partial(self._alone().read_and_measure, measure))

    def check(self) -> None:
        """Raise IncompleteError, naming every file, when any could not be read."""
        if self.problems:
            raise IncompleteError(self.problems)

    def read(self, path: Path) -> NDArray[np.uint8] | UnreadableVideoError:
        """The clip of a file, or why there is none."""
        count = 1 if self.freeze else self.frames
        try:
            if self.trusted:
                clip = read_frames(path, count, self.frames_per_second, offset_seed=self.offset_seed)
            else:
                clip = _read_untrusted(path, count, self.frames_per_second, self.offset_seed)
        except UnreadableVideoError as problem:
            return problem
        clip = preprocess_clip(clip, self.preprocessing, self.width, self.height)
        return np.repeat(clip, self.frames, axis=0) if self.freeze else clip

    def read_and_measure(
        self, measure: Callable[[NDArray[np.uint8]], Result], path: Path
    ) -> tuple[NDArray[np.uint8], Result] | UnreadableVideoError:
        """The same with what `measure` says of the clip."""
        clip = self.read(path)
        return clip if isinstance(clip, UnreadableVideoError) else (clip, measure(clip))

    def _alone(self) -> ClipReader:
        """How files are read, without which: what a worker is sent."""
        return replace(self, paths=(), problems=[], on_clip=_do_nothing)

    def _results(self, function: Callable[[Path], Result | UnreadableVideoError]) -> Iterator[Result]:
        for result in in_order(function, self.paths, self.workers):
            if isinstance(result, UnreadableVideoError):
                self.problems.append(result)
            else:
                yield result
            self.on_clip()


def _read_untrusted(path: Path, count: int, rate: float | None, offset_seed: int | None) -> NDArray[np.uint8]:
    try:
        if path.stat().st_size == 0:
            raise UnreadableVideoError(path, "the file is empty")
        with path.open("rb") as file:
            return read_frames(path, count, rate, offset_seed=offset_seed, file=file)
    except OSError as error:
        raise UnreadableVideoError(path, f"cannot be opened ({error.strerror})") from error
