"""Read and write video files with PyAV: the only decoder and encoder of the project."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import av
import numpy as np
from av.filter import Graph
from numpy.typing import NDArray

from vdmini.files import replacing
from vdmini_bench.data.timeline import Shown, Timeline, exact_rate, frames_at_rate
from vdmini_bench.errors import UnreadableVideoError

ENCODINGS = {
    ".avi": ("mpeg4", "yuv420p", {"qmin": "1", "qmax": "1", "flags": "+bitexact"}),
    ".mp4": ("libx264", "yuv420p", {"crf": "6", "x264-params": "mbtree=0"}),
    ".mkv": ("ffv1", "bgr0", {"level": "1"}),
}
# Raise it when other frames are read from the same file: scores against one's own videos then no longer compare.
READING_VERSION = 2
# FFmpeg tells a format by the content: a playlist under a video's name would have it open other files and addresses.
SELF_CONTAINED = "asf,avi,flv,gif,matroska,webm,mov,mp4,m4a,3gp,3g2,mj2,mpeg,mpegts,ogg"


@dataclass(frozen=True)
class VideoFacts:
    """What a file says of itself: frames a second, and the pixels of its frames as they are shown."""

    frames_per_second: float
    width: int
    height: int


def read_frames(
    path: Path,
    count: int,
    frames_per_second: float | None = None,
    *,
    offset_seed: int | None = None,
    file: BinaryIO | None = None,
) -> NDArray[np.uint8]:
    """Read `count` frames at `frames_per_second` where it is given, one by one otherwise: T H W C uint8 RGB.

    This decides for all that reads videos which frames a clip has. A file whose frames are evenly spaced at that rate,
    within `timeline.RATE_TOLERANCE`, gives them one by one. Of any other, whose rate may vary, they are those that
    FFmpeg's filter `fps` gives: `timeline.frames_at_rate`.

    They are the first ones, or start anywhere with the same chance when `offset_seed` is given: the start depends on
    that seed and the file's name alone.

    They are read from `file`, which must seek, when it is given; `path` then only names it. Such a file is not
    trusted: it is read when it is of a format that holds its own frames, and a playlist is not followed.

    Raises:
        UnreadableVideoError: the file cannot be opened or decoded, or holds fewer frames than asked for.
    """
    resampled = None if frames_per_second is None else _resampled(path, file, frames_per_second)
    start = 0
    if offset_seed is not None:
        with _opened(path, file) as container:
            start = _random_start(container, path, count, resampled, offset_seed)
    with _opened(path, file) as container:
        frames = [_pixels(frame, path) for frame in islice(_frames_of(container, path, resampled, start), count)]
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
    with _untrusted(path) as container:
        frames = [_pixels(frame, path) for frame in _decoded(container, path)]
    if not frames or len({frame.shape for frame in frames}) > 1:
        raise UnreadableVideoError(path, "its frames change size" if frames else "it holds no frame")
    return np.stack(frames)


def read_scaled(path: Path, side: int) -> list[NDArray[np.uint8]]:
    """Read a whole video, which is not trusted, as squares, H W C uint8 RGB, scaled before they become RGB.

    So decord reads where it is given a size, to the last bit. Raises UnreadableVideoError.
    """
    frames = []
    with _untrusted(path) as container:
        graph = Graph()
        source, sink = graph.add_buffer(template=_stream(container, path)), graph.add("buffersink")
        scale, colours = graph.add("scale", f"{side}:{side}:flags=bilinear"), graph.add("format", "rgb24")
        graph.link_nodes(source, scale, colours, sink).configure()
        for frame in _decoded(container, path):
            graph.push(frame)
            frames.append(_pixels(graph.vpull(), path))
    return frames


def frame_sizes(path: Path) -> Counter[tuple[int, int]]:
    """Decode a whole video, which is not trusted: its frames of each width and height; raises UnreadableVideoError."""
    with _untrusted(path) as container:
        return Counter((frame.width, frame.height) for frame in _decoded(container, path))


def has_cover_picture(path: Path) -> bool:
    """Whether a file has a cover picture, which others may take for its video; raises UnreadableVideoError."""
    with _opened(path, None) as container:
        return any(map(_is_cover, container.streams.video))


def video_facts(path: Path) -> VideoFacts:
    """What the head of a file and its first frame say; a playlist is not followed.

    Raises:
        UnreadableVideoError: the file cannot be opened or holds no video.
    """
    with _untrusted(path) as container:
        first = next(_decoded(container, path), None)
        if first is None:
            raise UnreadableVideoError(path, "it holds no frame")
        height, width = _pixels(first, path).shape[:2]
        return VideoFacts(float(_rate(_stream(container, path))), width, height)


def read_timeline(path: Path) -> Timeline:
    """When frames are shown; nothing is decoded and a playlist is not followed; raises UnreadableVideoError."""
    with _untrusted(path) as container:
        return _timeline(container, path)


def write_video(path: Path, frames: NDArray[np.uint8], frames_per_second: float) -> None:
    """Write T H W C uint8 RGB frames.

    `.avi` is MPEG-4 Part 2, as UCF101's XviD, and `.mp4` H.264, both near lossless; `.mkv` is FFV1, lossless.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    codec, pixel_format, options = ENCODINGS[path.suffix]
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=exact_rate(frames_per_second))
        assert isinstance(stream, av.VideoStream)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = pixel_format
        # One thread: with more, encoders cut slices by thread count and the file depends on the machine.
        stream.codec_context.thread_count = 1
        stream.options = dict(options)
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))


def write_whole(path: Path, frames: NDArray[np.uint8], frames_per_second: float) -> None:
    """Write a video as `write_video` does, so that a file of its name is never a part of it."""
    with replacing(path) as partial:
        write_video(partial, frames, frames_per_second)


@contextmanager
def _untrusted(path: Path) -> Iterator[av.container.InputContainer]:
    """The same of a file that is read only if it holds its own frames."""
    try:
        with path.open("rb") as file, _opened(path, file) as container:
            yield container
    except OSError as error:
        raise UnreadableVideoError(path, f"cannot be opened ({error.strerror})") from error


@contextmanager
def _opened(path: Path, file: BinaryIO | None) -> Iterator[av.container.InputContainer]:
    """A file open for decoding; whatever goes wrong with it, then or later, is an UnreadableVideoError."""
    if file is None:
        if not path.is_file():
            raise UnreadableVideoError(path, "no such file")
        if path.stat().st_size == 0:
            raise UnreadableVideoError(path, "the file is empty")
    else:
        file.seek(0)
    name = str(path) if file is None else file
    options = {} if file is None else {"format_whitelist": SELF_CONTAINED}
    try:
        with av.open(name, "r", container_options=options, metadata_errors="replace") as container:
            yield container
    except (av.FFmpegError, OSError) as error:
        raise UnreadableVideoError(path, f"cannot be decoded ({error})") from error


def _is_cover(stream: av.VideoStream) -> bool:
    return bool(stream.disposition & av.stream.Disposition.attached_pic)


def _stream(container: av.container.InputContainer, path: Path) -> av.VideoStream:
    """The first video stream that is no cover picture."""
    videos = container.streams.video
    streams = [each for each in videos if not _is_cover(each)]
    if not streams:
        raise UnreadableVideoError(path, "no video but a cover picture" if videos else "no video stream")
    if streams[0].codec_context is None:
        # Cut so early that the file no longer says how it was encoded.
        raise UnreadableVideoError(path, "its encoding cannot be told")
    return streams[0]


def _decoded(container: av.container.InputContainer, path: Path) -> Iterator[av.VideoFrame]:
    """Every frame in the order in which they are shown, without those before the start of an edit."""
    stream = _stream(container, path)
    # By default FFmpeg paints over what it cannot decode, and a damaged file reads as a good one.
    stream.codec_context.options = {"err_detect": "explode"}
    yield from container.decode(stream)


def _pixels(frame: av.VideoFrame, path: Path) -> NDArray[np.uint8]:
    """H W C uint8 RGB, turned and mirrored as the file says that it is shown.

    Colours go by the file's own tags; untagged ones are BT.601 of limited range, as FFmpeg has it.
    """
    pixels = np.asarray(frame.to_ndarray(format="rgb24"), dtype=np.uint8)
    side_data: Any = frame.side_data.get("DISPLAYMATRIX")
    if side_data is None:
        return pixels
    # A pixel that is stored at (x, y), down from the top left, is shown at (a x + c y, b x + d y), moved into view.
    a, b, _, c, d = np.frombuffer(side_data, np.int32)[:5].tolist()
    if min(abs(a), abs(b)) > max(abs(a), abs(b)) / 100:
        raise UnreadableVideoError(path, "its display matrix turns frames by another angle than a quarter")
    if abs(b) > abs(a):
        pixels, a, d = pixels.transpose(1, 0, 2), c, b
    return pixels[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]


def _rate(stream: av.VideoStream) -> Fraction:
    return stream.average_rate or stream.guessed_rate or Fraction(25)


def _timeline(container: av.container.InputContainer, path: Path) -> Timeline:
    stream = _stream(container, path)
    rate, tick = _rate(stream), Fraction(stream.time_base or Fraction(1, 90000))
    step = max(1, round(1 / (rate * tick)))
    # Frames before the start of an edit are marked to be thrown away; what ends the stream has no content.
    packets = [
        (packet.pts, packet.dts, packet.duration)
        for packet in container.demux(stream)
        if packet.size and not packet.is_discard
    ]
    shown = [pts for pts, _, _ in packets if pts is not None]
    decoded = [dts for _, dts, _ in packets if dts is not None]
    # AVI has no times beside its frames. FFmpeg makes some up, right for the first only where frames change places.
    made_up = container.format.name == "avi" and len(shown) == len(decoded) == len(packets) > 0
    counted = [dts - decoded[0] + shown[0] for dts in decoded] if made_up else []
    # Other files have no times, or one for all frames: those of decoding stand in, or else the rate that the head says.
    places = [place * step for place in range(len(packets))]
    fewest = min(2, len(packets))
    candidates = (each for each in (counted, shown, decoded) if len(each) == len(packets) and len(set(each)) >= fewest)
    times = next(candidates, places)
    by_place = times is not shown or (stream.codec_context.has_b_frames and shown == sorted(shown))
    last, duration = max(zip(times, (duration or step for _, _, duration in packets), strict=True), default=(0, 0))
    return Timeline(tuple(sorted(times)), last + duration, tick, rate, bool(by_place))


_Resampled = tuple[Timeline, float]


def _resampled(path: Path, file: BinaryIO | None, frames_per_second: float) -> _Resampled | None:
    """What decides which frames are taken at a rate; None where they are taken one by one."""
    with _opened(path, file) as container:
        timeline = _timeline(container, path)
    return None if timeline.has_rate(frames_per_second) else (timeline, frames_per_second)


def _shown(frames: Iterator[av.VideoFrame], timeline: Timeline) -> Iterator[Shown[av.VideoFrame]]:
    """Frames with their times."""
    step = max(1, round(1 / (timeline.named_rate * timeline.tick)))
    time = -step
    for place, frame in enumerate(frames):
        if not timeline.by_place and frame.pts is not None:
            time = frame.pts
        elif timeline.by_place and place < len(timeline.times):
            time = timeline.times[place]
        else:
            time += step
        yield time * timeline.tick, (time + (frame.duration or step)) * timeline.tick, frame


def _frames_of(
    container: av.container.InputContainer, path: Path, resampled: _Resampled | None, start: int
) -> Iterator[av.VideoFrame]:
    frames = _decoded(container, path)
    if resampled is None:
        return islice(frames, start, None)
    timeline, rate = resampled
    return frames_at_rate(_shown(frames, timeline), rate, start)


def _random_start(
    container: av.container.InputContainer, path: Path, count: int, resampled: _Resampled | None, seed: int
) -> int:
    """A frame from which `count` can be taken; counted by decoding, since files are often wrong about themselves."""
    total = sum(1 for _ in _frames_of(container, path, resampled, 0))
    starts = max(total - count + 1, 1)
    digest = hashlib.sha256(f"{seed}:{path.name}".encode(errors="surrogateescape")).digest()
    return int.from_bytes(digest[:8], "little") % starts
