from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vdmini_bench.data.synthetic import ACTIONS, COLOURS, FRAMES, GROUPS, SHAPES, clip_count, draw_clip, write_dataset
from vdmini_bench.data.ucf101 import read_split
from vdmini_bench.data.video import read_frames


@given(st.sampled_from(sorted(ACTIONS)), st.integers(1, GROUPS), st.integers(1, 99))
@settings(max_examples=30, deadline=None)
def test_a_clip_is_the_same_on_every_call_and_moves(action: str, group: int, index: int) -> None:
    clip, again = draw_clip(action, group, index), draw_clip(action, group, index)
    assert clip.frames.shape == (FRAMES, 32, 32, 3)
    assert clip.frames.dtype == np.uint8
    assert (clip.frames == again.frames).all()
    assert clip.caption == again.caption
    assert (np.abs(np.diff(clip.frames.astype(int), axis=0)).max(axis=(1, 2, 3)) > 5).all()
    assert not (clip.frames == draw_clip(action, group, index + 1).frames).all()


def test_what_is_drawn_stays_what_was_drawn() -> None:
    # Shipped weights and references were made from these pictures.
    clip = draw_clip("Bounce", 1, 1)
    assert clip.caption == "a orange disc bounces over a plum background"
    assert clip.frames.astype(np.int64).sum() == pytest.approx(3060660, rel=1e-4)


def test_content_does_not_depend_on_the_motion() -> None:
    contents = {}
    for action, (verb, _) in ACTIONS.items():
        captions = [draw_clip(action, group, 1).caption for group in range(1, 26)]
        assert all(f" {verb} over " in caption for caption in captions)
        contents[action] = Counter((caption.split()[1], caption.split()[2]) for caption in captions)
    for action, content in contents.items():
        # No action has a shape or colour of its own.
        assert {shape for _, shape in content} == set(SHAPES), action
        assert len({colour for colour, _ in content}) >= len(COLOURS) - 1, action
    assert len({frozenset(content.items()) for content in contents.values()}) == len(ACTIONS)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drawn")
    write_dataset(folder, 1, 2)
    return folder


def test_the_layout_is_ucf101s(root: Path) -> None:
    split = read_split(root, "01")
    videos = [*split.train, *split.test]
    assert len(videos) == clip_count(1, 2) == len(list(root.glob("UCF-101/*/v_*.avi")))
    assert {video.label for video in split.train} == {video.label for video in split.test} == set(ACTIONS)
    assert all(video.path.is_file() and video.path.name.startswith(f"v_{video.label}_g") for video in videos)
    assert not list(root.rglob(".partial-*"))
    captions = (root / "captions.csv").read_text().splitlines()
    assert captions[0] == "path,caption"
    assert {line.split(",")[0] for line in captions[1:]} == {video.relative for video in videos}
    for number, line in enumerate((root / "ucfTrainTestlist" / "classInd.txt").read_text().splitlines(), start=1):
        assert line.split(" ") == [str(number), sorted(ACTIONS)[number - 1]]


def test_training_and_test_share_no_group(root: Path) -> None:
    split = read_split(root, "01")
    groups = [{video.relative.split("_")[2] for video in part} for part in (split.train, split.test)]
    assert len(groups[0]) == 18
    assert groups[1] == {f"g{number:02d}" for number in range(1, 8)}
    assert not groups[0] & groups[1]


def test_files_hold_what_was_drawn(root: Path) -> None:
    video = read_split(root, "01").test[0]
    action, group, index = video.label, int(video.relative[-10:-8]), int(video.relative[-6:-4])
    drawn = draw_clip(action, group, index).frames
    assert np.abs(read_frames(video.path, FRAMES, 7).astype(int) - drawn).mean() < 5


def test_a_second_call_keeps_files_and_mends_gaps(root: Path) -> None:
    videos = read_split(root, "01").test
    gone, kept = videos[0].path, videos[1].path
    content, times = gone.read_bytes(), kept.stat().st_mtime_ns
    gone.unlink()
    calls: list[None] = []
    write_dataset(root, 1, 2, on_clip=lambda: calls.append(None))
    assert gone.read_bytes() == content
    assert kept.stat().st_mtime_ns == times
    assert len(calls) == clip_count(1, 2)
