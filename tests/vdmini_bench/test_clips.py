from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from vdmini_bench.config.suite import Profile, load_suite
from vdmini_bench.data.clip_reader import ClipReader
from vdmini_bench.data.preprocessing import resize_clip
from vdmini_bench.data.synthetic import draw_clip
from vdmini_bench.data.ucf101 import UcfSplit, VideoFile
from vdmini_bench.data.video import write_video
from vdmini_bench.errors import IncompleteError, SuiteError
from vdmini_bench.suites.clip_selection import ChosenClips, choose_clips

SUITE = Path(__file__).parents[2] / "suites" / "ucf101.yaml"


def split(train: int, test: int) -> UcfSplit:
    def files(kind: str, count: int) -> tuple[VideoFile, ...]:
        names = [(label, f"{label}/{kind}{number:03d}.avi") for label in "ABC" for number in range(count)]
        return tuple(VideoFile(label, name, Path(name)) for label, name in names)

    return UcfSplit(files("train", train), files("test", test))


def profile(*overrides: str) -> Profile:
    few = ("protocol.clips_per_block=4", "protocol.blocks=2", "dataset.train_clips=6", "protocol.reference_clips=9")
    return load_suite(SUITE, "smoke", (*few, *overrides)).profile


def everything(clips: ChosenClips) -> list[VideoFile]:
    return [*clips.train, *clips.condition, *clips.real, *clips.reference]


def test_the_clips_of_a_run_are_disjoint_and_as_many_as_asked_for() -> None:
    for reference, count in (("shipped", 0), ("computed", 9)):
        clips = choose_clips(split(10, 10), profile(f"protocol.reference={reference}"))
        sizes = [len(part) for part in (clips.train, clips.condition, clips.real, clips.reference)]
        assert sizes == [6, 8, 8, count]
        assert len(set(everything(clips))) == sum(sizes)
        assert all("train" in video.relative for video in (*clips.train, *clips.reference))
        assert all("test" in video.relative for video in (*clips.condition, *clips.real))


def test_the_choice_repeats_and_needs_enough_clips() -> None:
    assert choose_clips(split(10, 10), profile()) == choose_clips(split(10, 10), profile())
    with pytest.raises(SuiteError, match="16 clips asked for where the data set has 15"):
        choose_clips(split(10, 5), profile())
    with pytest.raises(SuiteError, match="15 clips asked for where the data set has 12"):
        choose_clips(split(4, 10), profile("protocol.reference=computed"))


def test_videos_are_long_enough_where_reading_them_gives_a_clip(tmp_path: Path) -> None:
    def is_read(path: Path) -> bool:
        reader = ClipReader([path], 10, 7)
        return len(list(reader)) == 1

    videos = []
    for label in ("train", "test"):
        for frames in range(28, 42):
            path = tmp_path / f"{label}-{frames}.mkv"
            # 25 a second: 10 of 7 a second end after 33 or 34 of them.
            write_video(path, np.zeros((frames, 16, 16, 3), np.uint8), 25)
            videos.append(VideoFile(label, path.name, path))
    readable = {video.relative for video in videos if is_read(video.path)}
    assert 2 < len(readable) < len(videos) - 2
    files = UcfSplit(tuple(videos[: len(videos) // 2]), tuple(videos[len(videos) // 2 :]))
    few = ("protocol.clips_per_block=3", "protocol.blocks=1", "protocol.short_videos=leave-out")
    assert {video.relative for video in everything(choose_clips(files, profile(*few)))} <= readable
    with pytest.raises(SuiteError, match=f"data set has {len(readable) // 2}"):
        choose_clips(files, profile(*few, f"dataset.train_clips={len(readable)}"))


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    found = [tmp_path / f"{number}.mkv" for number in range(4)]
    for number, path in enumerate(found):
        write_video(path, draw_clip("Rise", 1, number).frames, 7)
    return found


def test_clips_come_in_order(paths: list[Path]) -> None:
    reader = ClipReader(paths, 10, 7)
    clips = list(reader)
    assert len(reader) == len(clips) == 4
    for number, clip in enumerate(clips):
        assert (clip == draw_clip("Rise", 1, number).frames).all()
    reader.check()


def test_every_unreadable_file_is_named_and_the_rest_is_read(paths: list[Path]) -> None:
    paths[0].unlink()
    paths[1].write_bytes(b"")
    paths[3].write_bytes(paths[3].read_bytes()[:300])
    ticks: list[None] = []
    reader = ClipReader(paths, 10, 7, on_clip=lambda: ticks.append(None))
    assert len(list(reader)) == 1
    assert len(ticks) == 4
    with pytest.raises(IncompleteError, match=r"^3 unreadable clips") as caught:
        reader.check()
    assert [problem.path for problem in caught.value.problems] == [paths[0], paths[1], paths[3]]
    assert all(str(problem) in str(caught.value) for problem in caught.value.problems)
    assert caught.value.exit_code == 3
    assert str(IncompleteError(caught.value.problems, "measure real")).startswith("measure real: 3 unreadable clips")


def test_a_frozen_clip_repeats_its_first_frame(paths: list[Path]) -> None:
    clip = next(iter(ClipReader(paths, 10, 7, freeze=True)))
    assert clip.shape == (10, 32, 32, 3)
    assert (clip == draw_clip("Rise", 1, 0).frames[:1]).all()


def test_clips_are_resized_frame_by_frame(paths: list[Path]) -> None:
    reader = ClipReader(paths, 10, 7, width=24, height=16)
    for number, clip in enumerate(reader):
        assert clip.shape == (10, 16, 24, 3)
        frames = draw_clip("Rise", 1, number).frames
        assert (resize_clip(frames[3:4], 24, 16)[0] == clip[3]).all()
        assert np.abs(clip.mean(axis=(1, 2)) - frames.mean(axis=(1, 2))).max() < 3


def test_no_size_and_the_same_size_change_nothing() -> None:
    clip = draw_clip("Rise", 1, 0).frames
    for width, height in ((None, None), (None, 16), (16, None), (32, 32)):
        assert resize_clip(clip, width, height) is clip
