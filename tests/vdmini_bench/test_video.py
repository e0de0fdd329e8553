from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from vdmini_bench.datasets.synthetic import draw_clip
from vdmini_bench.datasets.video import ENCODINGS, UnreadableVideoError, read_frames, write_video


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
        (14, 7, [0, 2, 4, 6, 8, 10]),
        (25, 7, [0, 3, 7, 10, 14, 17]),
        (7, 14, [0, 0, 1, 1, 2, 2]),
    ],
)
def test_resampling_takes_the_nearest_earlier_frame(
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
