"""Read and write video files with PyAV: the only decoder and encoder of the project."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

import av
import numpy as np
from numpy.typing import NDArray

from vdmini.files import replacing

ENCODINGS = {
    ".avi": ("mpeg4", "yuv420p", {"qmin": "1", "qmax": "1", "flags": "+bitexact"}),
    ".mp4": ("libx264", "yuv420p", {"crf": "6", "x264-params": "mbtree=0"}),
    ".mkv": ("ffv1", "bgr0", {"level": "1"}),
}
# FFmpeg tells a format by the content: a playlist under a video's name would have it open other files and addresses.
SELF_CONTAINED = "asf,avi,flv,gif,matroska,webm,mov,mp4,m4a,3gp,3g2,mj2,mpeg,mpegts,ogg"


class UnreadableVideoError(Exception):
    """A video file that is missing, empty, truncated or too short for the protocol."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason

    def __reduce__(self) -> tuple[type[UnreadableVideoError], tuple[Path, str]]:
        return UnreadableVideoError, (self.path, self.reason)


@dataclass(frozen=True)
class VideoFacts:
    """What a file says of itself: frames a second, pixels, and its number of frames (0 where it does not say)."""

    frames_per_second: float
    width: int
    height: int
    frames: int


def read_frames(
    path: Path,
    count: int,
    frames_per_second: float | None = None,
    *,
    offset_seed: int | None = None,
    file: BinaryIO | None = None,
) -> NDArray[np.uint8]:
    """Read `count` frames, resampled to `frames_per_second` when given: T H W C uint8 RGB.

    They are the first ones, or start anywhere with the same chance when `offset_seed` is given: the start depends on
    that seed and the file's name alone.

    They are read from `file`, which must seek, when it is given; `path` then only names it. Such a file is not
    trusted: it is read when it is of a format that holds its own frames, and a playlist is not followed.

    Raises:
        UnreadableVideoError: the file cannot be opened or decoded, or holds fewer frames than asked for.
    """
    start = 0
    if offset_seed is not None:
        with _opened(path, file) as container:
            start = _random_start(container, path, count, frames_per_second, offset_seed)
        if file is not None:
            file.seek(0)
    with _opened(path, file) as container:
        frames = list(_take(container, path, count, frames_per_second, start))
    if len(frames) < count:
        raise UnreadableVideoError(path, f"{len(frames)} frames where the protocol needs {count}")
    if len({frame.shape for frame in frames}) > 1:
        raise UnreadableVideoError(path, "its frames change size")
    return np.stack(frames)


def read_every_frame(path: Path) -> NDArray[np.uint8]:
    """Read a whole video, which is not trusted: T H W C uint8 RGB.

    Raises:
        UnreadableVideoError: the file cannot be opened or decoded, holds no frame, or its frames change size.
    """
    try:
        with path.open("rb") as file, _opened(path, file) as container:
            frames = [
                np.asarray(frame.to_ndarray(format="rgb24"), dtype=np.uint8) for frame in _decoded(container, path)
            ]
    except OSError as error:
        raise UnreadableVideoError(path, f"cannot be opened ({error.strerror})") from error
    if not frames or len({frame.shape for frame in frames}) > 1:
        raise UnreadableVideoError(path, "its frames change size" if frames else "it holds no frame")
    return np.stack(frames)


def video_facts(path: Path) -> VideoFacts:
    """What the head of a file says; nothing is decoded and a playlist is not followed.

    Raises:
        UnreadableVideoError: the file cannot be opened or holds no video.
    """
    try:
        with path.open("rb") as file, _opened(path, file) as container:
            stream = container.streams.video[0]
            return VideoFacts(float(_rate(stream)), stream.width, stream.height, stream.frames)
    except OSError as error:
        raise UnreadableVideoError(path, f"cannot be opened ({error.strerror})") from error


def write_video(path: Path, frames: NDArray[np.uint8], frames_per_second: int) -> None:
    """Write T H W C uint8 RGB frames.

    `.avi` is MPEG-4 Part 2, as UCF101's XviD, and `.mp4` H.264, both near lossless; `.mkv` is FFV1, lossless.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    codec, pixel_format, options = ENCODINGS[path.suffix]
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=frames_per_second)
        assert isinstance(stream, av.VideoStream)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = pixel_format
        # One thread: with more, encoders cut slices by thread count and the file depends on the machine.
        stream.codec_context.thread_count = 1
        stream.options = dict(options)
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))


def write_whole(path: Path, frames: NDArray[np.uint8], frames_per_second: int) -> None:
    """Write a video as `write_video` does, so that a file of its name is never a part of it."""
    with replacing(path) as partial:
        write_video(partial, frames, frames_per_second)


@contextmanager
def _opened(path: Path, file: BinaryIO | None) -> Iterator[av.container.InputContainer]:
    """A file open for decoding; whatever goes wrong with it, then or later, is an UnreadableVideoError."""
    if file is None:
        if not path.is_file():
            raise UnreadableVideoError(path, "no such file")
        if path.stat().st_size == 0:
            raise UnreadableVideoError(path, "the file is empty")
    options = {} if file is None else {"format_whitelist": SELF_CONTAINED}
    try:
        with av.open(str(path) if file is None else file, "r", container_options=options) as container:
            if not container.streams.video:
                raise UnreadableVideoError(path, "no video stream")
            yield container
    except (av.FFmpegError, OSError) as error:
        raise UnreadableVideoError(path, f"cannot be decoded ({error})") from error


def _decoded(container: av.container.InputContainer, path: Path) -> Iterator[av.VideoFrame]:
    stream = container.streams.video[0]
    if stream.codec_context is None:
        # Cut so early that the file no longer says how it was encoded.
        raise UnreadableVideoError(path, "its encoding cannot be told")
    # By default FFmpeg paints over what it cannot decode, and a damaged file reads as a good one.
    stream.codec_context.options = {"err_detect": "explode"}
    yield from container.decode(stream)


def _rate(stream: av.VideoStream) -> Fraction:
    return stream.average_rate or stream.guessed_rate or Fraction(25)


def _step(container: av.container.InputContainer, frames_per_second: float | None) -> float:
    """How many frames of the file go by for one that is taken."""
    return 1.0 if frames_per_second is None else float(_rate(container.streams.video[0])) / frames_per_second


def _random_start(
    container: av.container.InputContainer, path: Path, count: int, frames_per_second: float | None, seed: int
) -> int:
    """A frame from which `count` can be taken; counted by decoding, since files are often wrong about themselves."""
    total = sum(1 for _ in _decoded(container, path))
    last = int((count - 1) * _step(container, frames_per_second) + 1e-6)
    starts = max(total - last, 1)
    digest = hashlib.sha256(f"{seed}:{path.name}".encode(errors="surrogateescape")).digest()
    return int.from_bytes(digest[:8], "little") % starts


def _take(
    container: av.container.InputContainer, path: Path, count: int, frames_per_second: float | None, start: int
) -> Iterator[NDArray[np.uint8]]:
    step = _step(container, frames_per_second)
    taken = 0
    for position, frame in enumerate(_decoded(container, path)):
        # A source slower than the target repeats frames, a faster one skips them: nearest earlier frame.
        while taken < count and start + int(taken * step + 1e-6) == position:
            yield np.asarray(frame.to_ndarray(format="rgb24"), dtype=np.uint8)
            taken += 1
        if taken == count:
            return
