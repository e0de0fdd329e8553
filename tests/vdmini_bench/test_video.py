from __future__ import annotations

import struct
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mp4_boxes import with_cover
from numpy.typing import NDArray

from vdmini_bench.data.synthetic import draw_clip
from vdmini_bench.data.video import ENCODINGS, read_every_frame, read_frames, read_timeline, video_facts, write_video
from vdmini_bench.errors import UnreadableVideoError
from vdmini_bench.vbench.completeness import measure_video


def numbered(count: int) -> NDArray[np.uint8]:
    """Frames that tell their number: frame n is grey of level 5 n."""
    return np.stack([np.full((16, 16, 3), 5 * number, dtype=np.uint8) for number in range(count)])


def numbers(frames: NDArray[np.uint8]) -> list[int]:
    return [round(float(frame.mean()) / 5) for frame in frames]


def refusal(path: Path, count: int = 10) -> str:
    with pytest.raises(UnreadableVideoError) as caught:
        read_frames(path, count)
    assert caught.value.path == path
    assert str(caught.value).startswith(f"{path}: ")
    return caught.value.reason


@pytest.mark.parametrize("suffix", ENCODINGS)
def test_frames_come_back(tmp_path: Path, suffix: str) -> None:
    frames, path = draw_clip("Spin", 1, 1).frames, tmp_path / "new" / f"clip{suffix}"
    write_video(path, frames, 7)
    found = read_frames(path, len(frames))
    assert found.shape == frames.shape
    assert found.dtype == np.uint8
    difference = np.abs(found.astype(int) - frames)
    if suffix == ".mkv":
        assert difference.max() == 0
    else:
        assert difference.mean() < 3
    # Order and number of frames are exact everywhere: each is nearest to itself.
    nearest = [np.abs(frames.astype(int) - frame).mean(axis=(1, 2, 3)).argmin() for frame in found]
    assert nearest == list(range(len(frames)))


@pytest.mark.parametrize("suffix", ENCODINGS)
def test_the_same_frames_make_the_same_file(tmp_path: Path, suffix: str) -> None:
    paths = [tmp_path / f"{name}{suffix}" for name in "ab"]
    for path in paths:
        write_video(path, draw_clip("Fall", 2, 1).frames, 7)
    found = [read_frames(path, 10) for path in paths]
    assert (found[0] == found[1]).all()
    if suffix == ".avi":
        assert paths[0].read_bytes() == paths[1].read_bytes()


@pytest.mark.parametrize(
    ("source", "target", "expected"),
    [
        (25, None, [0, 1, 2, 3, 4, 5]),
        (7, 7, [0, 1, 2, 3, 4, 5]),
        # The last frame that is shown before the middle of each seventh of a second.
        (21, 7, [1, 4, 7, 10, 13, 16]),
        (25, 7, [1, 5, 8, 12, 16, 19]),
        (7, 14, [0, 0, 1, 1, 2, 2]),
    ],
)
def test_resampling_takes_the_frame_whose_time_is_nearest(
    tmp_path: Path, source: int, target: float | None, expected: list[int]
) -> None:
    path = tmp_path / "clip.mkv"
    write_video(path, numbered(20), source)
    assert numbers(read_frames(path, 6, target)) == expected


def test_resampling_can_run_out_of_frames(tmp_path: Path) -> None:
    path = tmp_path / "clip.mkv"
    write_video(path, numbered(20), 14)
    assert len(read_frames(path, 10, 7)) == 10
    with pytest.raises(UnreadableVideoError, match="10 frames where the protocol needs 11"):
        read_frames(path, 11, 7)
    assert refusal(path, 21) == "20 frames where the protocol needs 21"


def test_what_is_no_video_is_named(tmp_path: Path) -> None:
    empty, text, sound = tmp_path / "empty.avi", tmp_path / "text.avi", tmp_path / "subtitles.srt"
    empty.touch()
    text.write_text("this is no video\n" * 100)
    sound.write_text("1\n00:00:00,000 --> 00:00:01,000\nwords\n")
    assert refusal(tmp_path / "none.avi") == "no such file"
    assert refusal(tmp_path) == "no such file"
    assert refusal(empty) == "the file is empty"
    assert "cannot be decoded" in refusal(text)
    assert refusal(sound) == "no video stream"


def with_display_matrix(path: Path, *matrix: int) -> Path:
    """The .mp4 with the matrix (a, b, c, d) of how its frames are to be shown, in the head of its track."""
    a, b, c, d = (value << 16 for value in matrix)
    content = bytearray(path.read_bytes())
    at = content.index(b"tkhd") + 44
    content[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(content)
    return path


def corners(frame: NDArray[np.uint8]) -> list[int]:
    """The levels at the corners, clockwise from the top left, to the nearest 50."""
    means = (frame[rows, columns].mean() for rows, columns in CORNERS)
    return [round(float(mean) / 50) * 50 for mean in means]


START, END = slice(2, 6), slice(-6, -2)
CORNERS = [(START, START), (START, END), (END, END), (END, START)]


@pytest.mark.parametrize(
    ("matrix", "shown"),
    [
        ((1, 0, 0, 1), [50, 100, 150, 200]),
        # Turned clockwise by a quarter, a half and three quarters.
        ((0, 1, -1, 0), [200, 50, 100, 150]),
        ((-1, 0, 0, -1), [150, 200, 50, 100]),
        ((0, -1, 1, 0), [100, 150, 200, 50]),
        # Mirrored left and right, upside down, and along both diagonals.
        ((-1, 0, 0, 1), [100, 50, 200, 150]),
        ((1, 0, 0, -1), [200, 150, 100, 50]),
        ((0, 1, 1, 0), [50, 200, 150, 100]),
        ((0, -1, -1, 0), [150, 100, 50, 200]),
        # No way at all to show a frame: as it is.
        ((0, 0, 0, 0), [50, 100, 150, 200]),
    ],
)
def test_frames_are_turned_and_mirrored_as_they_are_to_be_shown(
    tmp_path: Path, matrix: tuple[int, ...], shown: list[int]
) -> None:
    frame = np.zeros((32, 48, 3), np.uint8)
    for (rows, columns), level in zip(CORNERS, (50, 100, 150, 200), strict=True):
        frame[slice(0, 8) if rows is START else slice(-8, None), columns] = level
        frame[rows, slice(0, 8) if columns is START else slice(-8, None)] = level
    path = tmp_path / "clip.mp4"
    write_video(path, np.repeat(frame[None], 10, axis=0), 7)
    with_display_matrix(path, *matrix)
    height, width = (48, 32) if matrix[1] else (32, 48)
    assert (video_facts(path).height, video_facts(path).width) == (height, width)
    for found in (read_frames(path, 10), read_frames(path, 4, 3), read_every_frame(path)):
        assert found.shape[1:] == (height, width, 3)
        assert corners(found[3]) == shown
    if matrix[0] >= 0 <= matrix[3] and matrix[1] * matrix[2] <= 0:
        # OpenCV turns, and mirrors nothing.
        seen = cv2.VideoCapture(str(path)).read()[1]
        assert corners(np.asarray(seen, dtype=np.uint8)) == shown


def test_a_slanting_display_matrix_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    write_video(path, numbered(10), 7)
    assert "another angle than a quarter" in refusal(with_display_matrix(path, 1, 1, -1, 1))


def test_a_cover_picture_is_no_video(tmp_path: Path) -> None:
    path, sound = tmp_path / "clip.mp4", tmp_path / "sound.mp4"
    write_video(path, numbered(20), 7)
    with_cover(path)
    assert numbers(read_frames(path, 20)) == numbers(read_frames(path, 20, 7)) == list(range(20))
    assert len(read_every_frame(path)) == 20
    assert (video_facts(path).width, measure_video(path)) == (16, (20, 16))
    with av.open(str(sound), "w") as container:
        stream = container.add_stream("aac", rate=44100, layout="mono")
        for _ in range(9):
            samples = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            samples.sample_rate = 44100
            container.mux(stream.encode(samples))
        container.mux(stream.encode(None))
    assert refusal(sound) == "no video stream"
    assert refusal(with_cover(sound)) == "no video but a cover picture"
    for read in (read_every_frame, video_facts, read_timeline, measure_video):
        with pytest.raises(UnreadableVideoError, match="no video but a cover picture"):
            read(sound)


def test_a_title_in_another_encoding_does_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "clip.mkv"
    with av.open(str(path), "w") as container:
        container.metadata["title"] = "caf\u00e9"
        stream = container.add_stream("ffv1", rate=7)
        stream.height, stream.width, stream.pix_fmt = 16, 16, "bgr0"
        for frame in numbered(10):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
    content = path.read_bytes()
    assert content.count(b"caf\xc3\xa9") == 1
    path.write_bytes(content.replace(b"caf\xc3\xa9", b"caf\xe9 "))
    assert numbers(read_frames(path, 10, 7)) == numbers(read_every_frame(path)) == list(range(10))
    assert measure_video(path) == (10, 16)


def test_frames_before_the_start_of_an_edit_are_not_shown(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    write_video(path, numbered(20), 8)
    content = bytearray(path.read_bytes())
    at = content.index(b"elst") + 12
    length, begin = struct.unpack(">Ii", content[at : at + 8])
    with av.open(str(path)) as container:
        step = round(1 / 8 / container.streams.video[0].time_base)
    content[at : at + 8] = struct.pack(">Ii", length, begin + 5 * step)
    path.write_bytes(content)
    assert numbers(read_every_frame(path)) == list(range(5, 20))
    assert numbers(read_frames(path, 15, 8)) == numbers(read_frames(path, 15)) == list(range(5, 20))
    assert numbers(read_frames(path, 7, 4)) == [5, 7, 9, 11, 13, 15, 17]
    assert read_timeline(path).count(8) == 15
    with pytest.raises(UnreadableVideoError, match="15 frames where the protocol needs 16"):
        read_frames(path, 16, 8)


def packed(source: Path) -> Path:
    """An .avi of the same MPEG-4 frames, each B-frame packed behind the one it is decoded after, as XviD writes it."""
    with av.open(str(source)) as container:
        content = [bytes(packet) for packet in container.demux(video=0) if packet.size]
    start = b"\x00\x00\x01\xb6"
    backwards = [frame[frame.index(start) + 4] >> 6 == 2 for frame in content]
    assert any(backwards)
    frames, place = [], 0
    while place < len(content):
        frame, followed = content[place], place + 1 < len(content) and backwards[place + 1]
        if not frames:
            frame = frame.replace(start, b"\x00\x00\x01\xb2DivX503b1393p" + start, 1)
        # In the B-frame's own place a picture of which nothing is coded.
        frames += [frame + content[place + 1], start + b"\x5f\x01"] if followed else [frame]
        place += 1 + followed
    target = source.with_stem("packed")
    with av.open(str(source)) as old, av.open(str(target), "w") as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        stream.time_base = Fraction(1, 25)
        for number, frame in enumerate(frames):
            packet = av.Packet(frame)
            packet.stream, packet.time_base = stream, Fraction(1, 25)
            packet.pts = packet.dts = number
            packet.is_keyframe = number == 0
            new.mux(packet)
    return target


def test_packed_frames_are_those_that_were_packed(tmp_path: Path) -> None:
    plain = tmp_path / "plain.avi"
    with av.open(str(plain), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.height = stream.width = 16
        stream.pix_fmt, stream.options = "yuv420p", {"qmin": "2", "qmax": "2", "bf": "1", "flags": "+bitexact"}
        stream.codec_context.max_b_frames = 1
        for frame in numbered(30):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
    assert numbers(read_every_frame(plain)) == list(range(30))
    assert (read_every_frame(packed(plain)) == read_every_frame(plain)).all()
    for path in (plain, packed(plain)):
        assert numbers(read_frames(path, 30, 25)) == list(range(30))
        # The first frame is shown after 1/25 s, since a B-frame waits for the one behind it.
        assert numbers(read_frames(path, 9, 7)) == [0, 4, 7, 11, 15, 18, 22, 25, 29]


TAGS = {
    "bt601": (6, 0.299, 0.114),
    "bt709": (1, 0.2126, 0.0722),
    "bt2020": (9, 0.2627, 0.0593),
    "untagged": (2, 0.299, 0.114),
}


@pytest.mark.parametrize("space", TAGS)
@pytest.mark.parametrize(("full", "bits"), [(False, 8), (True, 8), (False, 10)])
def test_colours_are_those_that_the_files_tags_mean(tmp_path: Path, space: str, full: bool, bits: int) -> None:
    tag, red, blue = TAGS[space]
    truth = np.zeros((32, 48, 3), np.uint8)
    truth[:, :24], truth[:, 24:] = (200, 40, 60), (30, 180, 90)
    # Converted by hand, so that no library is trusted.
    rgb = truth / 255
    luma = rgb @ [red, 1 - red - blue, blue]
    chroma = ((rgb[..., 2] - luma) / (2 - 2 * blue))[::2, ::2], ((rgb[..., 0] - luma) / (2 - 2 * red))[::2, ::2]
    top = 2**bits - 1
    scale = top if full else 219 * 2 ** (bits - 8)
    levels = luma * scale + (0 if full else 16 * 2 ** (bits - 8))
    planes = [levels, *(each * (top if full else 224 * 2 ** (bits - 8)) + 2 ** (bits - 1) for each in chroma)]
    path, pixels = tmp_path / "clip.mp4", "yuv420p" if bits == 8 else "yuv420p10le"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=7)
        stream.height, stream.width, stream.pix_fmt, stream.options = 32, 48, pixels, {"crf": "4"}
        stream.codec_context.colorspace, stream.codec_context.color_range = tag, 2 if full else 1
        for _ in range(3):
            frame = av.VideoFrame(48, 32, pixels)
            for plane, values in zip(frame.planes, planes, strict=True):
                whole = np.zeros((len(values), plane.line_size), np.uint8)
                row = np.rint(values).clip(0, top).astype(np.uint8 if bits == 8 else "<u2").view(np.uint8)
                whole[:, : row.shape[1]] = row
                plane.update(whole.tobytes())
            frame.colorspace, frame.color_range = tag, 2 if full else 1
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    found = read_frames(path, 3)[1].astype(int)
    # Away from where the colours meet.
    assert np.abs(found - truth)[:, [*range(20), *range(28, 48)]].max() <= 3


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    paths = {suffix: tmp_path_factory.mktemp("whole") / f"clip{suffix}" for suffix in ENCODINGS}
    for path in paths.values():
        write_video(path, draw_clip("Orbit", 1, 1).frames, 7)
    return paths


@pytest.mark.parametrize("suffix", ENCODINGS)
@given(share=st.floats(0, 1, exclude_max=True))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_truncated_file_is_refused_or_reads_as_the_whole(whole: dict[str, Path], suffix: str, share: float) -> None:
    content, expected = whole[suffix].read_bytes(), read_frames(whole[suffix], 10)
    path = whole[suffix].with_stem("cut")
    path.write_bytes(content[: int(share * len(content))])
    try:
        found = read_frames(path, 10)
    except UnreadableVideoError:
        return
    assert (found == expected).all()


@pytest.mark.parametrize("suffix", ENCODINGS)
def test_half_a_file_is_refused(whole: dict[str, Path], suffix: str) -> None:
    path = whole[suffix].with_stem("half")
    path.write_bytes(whole[suffix].read_bytes()[: whole[suffix].stat().st_size // 2])
    assert refusal(path)


def test_a_frame_cut_short_is_refused(whole: dict[str, Path]) -> None:
    # The index that follows the frames is cut off, and with it a part of the last frame, which a decoder makes up.
    content = whole[".avi"].read_bytes()
    path = whole[".avi"].with_stem("cut_short")
    path.write_bytes(content[: content.rindex(b"idx1") - 100])
    assert "cannot be decoded" in refusal(path)
    assert len(read_frames(path, 9)) == 9
