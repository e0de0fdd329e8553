"""Missing, extra, doubly named, identical and unreadable videos are found before anything is scored."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from small_suite import draw_video

from vdmini_bench.errors import SuiteError
from vdmini_bench.vbench import completeness
from vdmini_bench.vbench.completeness import IncompleteVideosError, check_videos, read_record, write_record

WANTED = [f"a cat-{index}" for index in range(5)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for place, name in enumerate(WANTED):
        draw_video(tmp_path / "videos" / f"{name}.mp4", place)
    return tmp_path / "videos"


def test_a_complete_folder(folder: Path) -> None:
    (folder / "samples.json").write_text("{}", encoding="utf-8")
    found = check_videos(folder, WANTED)
    assert found.complete
    assert [*found.videos] == WANTED
    assert {(file.frames, file.side) for file in found.files.values()} == {(4, 32)}
    assert found.extra == found.identical == ()


def test_everything_that_is_wrong_is_listed_at_once(folder: Path, tmp_path: Path) -> None:
    (folder / "a cat-0.mp4").unlink()
    shutil.copyfile(folder / "a cat-1.mp4", folder / "a cat-1.gif")
    whole = (folder / "a cat-2.mp4").read_bytes()
    (folder / "a cat-2.mp4").write_bytes(whole[: len(whole) // 2])
    draw_video(folder / "a cat-3.mp4", 3, frames=1)
    draw_video(folder / "a dog-0.mp4", 9)
    draw_video(folder / "a bird-0.mp4", 10)
    draw_video(folder / "a cat-0.avi", 11)
    shutil.copyfile(folder / "a cat-4.mp4", folder / "a cat-4.MP4")
    found = check_videos(folder, WANTED, known=["a bird-0"])
    assert not found.complete
    assert found.missing == ("a cat-0",)
    assert found.duplicate == ("a cat-1.gif and a cat-1.mp4",)
    assert [item.partition(":")[0] for item in found.unreadable] == ["a cat-2.mp4", "a cat-3.mp4"]
    assert "1 frames where 2 are needed" in found.unreadable[1]
    assert {*found.extra} == {"a dog-0.mp4", "a cat-0.avi", "a cat-4.MP4"}
    said = found.describe(tmp_path / "completeness.json")
    for name in ("a cat-0", "a cat-1.gif", "a cat-2.mp4", "a cat-3.mp4", "a dog-0.mp4"):
        assert name in said


def test_videos_with_the_same_bytes_are_named(folder: Path) -> None:
    shutil.copyfile(folder / "a cat-0.mp4", folder / "a cat-3.mp4")
    found = check_videos(folder, WANTED)
    assert found.complete
    assert found.identical == ("a cat-0.mp4 = a cat-3.mp4",)


def test_damage_in_the_middle_of_a_video_is_found(folder: Path) -> None:
    path = folder / "a cat-2.mp4"
    content = bytearray(path.read_bytes())
    start = content.index(b"mdat") + 4
    middle = start + (len(content) - start) // 2
    content[middle : middle + 400] = b"\xff" * 400
    path.write_bytes(bytes(content))
    assert check_videos(folder, WANTED).unreadable[0].startswith("a cat-2.mp4: cannot be decoded")


def test_long_lists_are_cut_and_their_record_named(folder: Path, tmp_path: Path) -> None:
    found = check_videos(folder, [f"a dog-{index}" for index in range(30)] + WANTED)
    said = found.describe(tmp_path / "completeness.json")
    assert said.startswith("30 missing:")
    assert f"... and 10 more, see {tmp_path / 'completeness.json'}" in said


def test_unchanged_videos_are_not_decoded_again(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = check_videos(folder, WANTED)
    write_record(tmp_path / "videos.json", first.files)
    draw_video(folder / "a cat-1.mp4", 77)
    decoded = []
    measure = completeness.measure_video
    monkeypatch.setattr(completeness, "measure_video", lambda path: (decoded.append(path.name), measure(path))[1])
    second = check_videos(folder, WANTED, earlier=read_record(tmp_path / "videos.json"))
    assert decoded == ["a cat-1.mp4"]
    assert second.files["a cat-1"].sha256 != first.files["a cat-1"].sha256
    assert {name: second.files[name] for name in WANTED if name != "a cat-1"}.items() <= first.files.items()


def test_a_damaged_record_is_no_record(tmp_path: Path) -> None:
    (tmp_path / "videos.json").write_text('{"a": {"file"', encoding="utf-8")
    assert read_record(tmp_path / "videos.json") == read_record(tmp_path / "none.json") == {}


def test_a_folder_without_videos_says_what_is_there_instead(tmp_path: Path) -> None:
    with pytest.raises(SuiteError, match="cannot be listed"):
        check_videos(tmp_path / "nowhere", WANTED)
    draw_video(tmp_path / "a cat-0.avi", 0)
    with pytest.raises(IncompleteVideosError, match=r"1 others such as a cat-0\.avi: .* convert it"):
        check_videos(tmp_path, WANTED)
