"""Which clips a run reads, and reading them so that no unreadable file goes unnoticed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vdmini_bench.datasets.ucf101 import UcfSplit, VideoFile, choose_balanced
from vdmini_bench.datasets.video import UnreadableVideoError, read_frames
from vdmini_bench.errors import BenchError, ExitCode
from vdmini_bench.suite import Profile


class IncompleteError(BenchError):
    """Clips that could not be read; what needs them has no result, and every file is named."""

    exit_code = ExitCode.INCOMPLETE

    def __init__(self, problems: Sequence[UnreadableVideoError], job: str = "") -> None:
        listing = "\n".join(f"  {problem}" for problem in problems)
        where = f"{job}: " if job else ""
        super().__init__(f"{where}{len(problems)} unreadable clips; replace them and run again:\n{listing}")
        self.problems = problems


@dataclass(frozen=True)
class ChosenClips:
    """The clips of a run, disjoint but for what the split lists repeat.

    `train` distils; `condition` gives the first frames; `real` is the held-out floor; `reference` is the real side of
    FVD where it is computed (empty where it is shipped).
    """

    train: tuple[VideoFile, ...]
    condition: tuple[VideoFile, ...]
    real: tuple[VideoFile, ...]
    reference: tuple[VideoFile, ...]


def choose_clips(split: UcfSplit, profile: Profile) -> ChosenClips:
    """Choose by class and seed: training and reference clips from the training list, the others from the test list."""
    protocol = profile.protocol
    generated = protocol.clips_per_block * protocol.blocks
    from_test = choose_balanced(split.test, 2 * generated, seed=0)
    wanted = profile.dataset.train_clips + (protocol.reference_clips if protocol.reference == "computed" else 0)
    from_train = choose_balanced(split.train, wanted, seed=1)
    return ChosenClips(
        train=tuple(from_train[: profile.dataset.train_clips]),
        condition=tuple(from_test[:generated]),
        real=tuple(from_test[generated:]),
        reference=tuple(from_train[profile.dataset.train_clips :]),
    )


@dataclass
class ClipReader:
    """Iterates over the frames of video files, T H W C uint8 each, and keeps the unreadable ones for `check`.

    `freeze` repeats the first frame: the clip a model without motion would make.
    """

    paths: Sequence[Path]
    frames: int
    frames_per_second: int | None
    width: int | None = None
    height: int | None = None
    freeze: bool = False
    on_clip: Callable[[], None] = lambda: None
    problems: list[UnreadableVideoError] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.paths)

    def __iter__(self) -> Iterator[NDArray[np.uint8]]:
        for path in self.paths:
            try:
                clip = self._read(path)
            except UnreadableVideoError as problem:
                self.problems.append(problem)
            else:
                yield resize_clip(clip, self.width, self.height)
            self.on_clip()

    def _read(self, path: Path) -> NDArray[np.uint8]:
        if self.freeze:
            return np.repeat(read_frames(path, 1, self.frames_per_second), self.frames, axis=0)
        return read_frames(path, self.frames, self.frames_per_second)

    def check(self) -> None:
        """Raise IncompleteError, naming every file, when any could not be read."""
        if self.problems:
            raise IncompleteError(self.problems)


def resize_clip(clip: NDArray[np.uint8], width: int | None, height: int | None) -> NDArray[np.uint8]:
    """Resize T H W C uint8 frames to `width` x `height` (bicubic, antialiased); None or the same size: no change."""
    if width is None or height is None or clip.shape[1:3] == (height, width):
        return clip
    frames = [Image.fromarray(frame).resize((width, height), Image.Resampling.BICUBIC) for frame in clip]
    return np.stack([np.asarray(frame) for frame in frames])
