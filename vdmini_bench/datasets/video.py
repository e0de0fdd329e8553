"""Read and write video files with PyAV: the only decoder and encoder of the project."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

import av
import numpy as np
from numpy.typing import NDArray

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


def read_frames(
    path: Path, count: int, frames_per_second: float | None = None, *, file: BinaryIO | None = None
) -> NDArray[np.uint8]:
    """Read the first `count` frames, resampled to `frames_per_second` when given: T H W C uint8 RGB.

    They are read from `file`, which must seek, when it is given; `path` then only names it. Such a file is not
    trusted: it is read when it is of a format that holds its own frames, and a playlist is not followed.

    Raises:
        UnreadableVideoError: the file cannot be opened or decoded, or holds fewer frames than asked for.
    """
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
            frames = list(_take(container, path, count, frames_per_second))
    except (av.FFmpegError, OSError) as error:
        raise UnreadableVideoError(path, f"cannot be decoded ({error})") from error
    if len(frames) < count:
        raise UnreadableVideoError(path, f"{len(frames)} frames where the protocol needs {count}")
    if len({frame.shape for frame in frames}) > 1:
        raise UnreadableVideoError(path, "its frames change size")
    return np.stack(frames)


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


def _take(
    container: av.container.InputContainer, path: Path, count: int, frames_per_second: float | None
) -> Iterator[NDArray[np.uint8]]:
    stream = container.streams.video[0]
    if stream.codec_context is None:
        # Cut so early that the file no longer says how it was encoded.
        raise UnreadableVideoError(path, "its encoding cannot be told")
    # By default FFmpeg paints over what it cannot decode, and a damaged file reads as a good one.
    stream.codec_context.options = {"err_detect": "explode"}
    rate = stream.average_rate or stream.guessed_rate or Fraction(25)
    step = 1.0 if frames_per_second is None else float(rate) / frames_per_second
    taken = 0
    for position, frame in enumerate(container.decode(stream)):
        # A source slower than the target repeats frames, a faster one skips them: nearest earlier frame.
        while taken < count and int(taken * step + 1e-6) == position:
            yield np.asarray(frame.to_ndarray(format="rgb24"), dtype=np.uint8)
            taken += 1
        if taken == count:
            return
