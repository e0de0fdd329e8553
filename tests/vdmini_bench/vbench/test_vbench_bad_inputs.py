"""Inputs as users have them: each ends in one clear message and its exit code, and what was there stays."""

from __future__ import annotations

import json
import os
import shutil
import unicodedata
from pathlib import Path

import av
import numpy as np
import pytest
from mp4_boxes import with_cover
from small_suite import (
    Bench,
    draw_video,
    expect,
    invoke,
    score_custom,
    score_official,
    write_weights,
)

from vdmini_bench.data.video import write_video
from vdmini_bench.errors import ExitCode
from vdmini_bench.vbench.environment import Environment
from vdmini_bench.vbench.requirements import examine_dimensions, weight_fault
from vdmini_bench.vbench.results import kept_result

COLOR = tuple(f"a red bicycle-{index}.mp4" for index in range(5))


def cut(path: Path) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) * 2 // 3])


def cut_after_its_index(path: Path) -> None:
    """The frames' places first, as in videos for the web: the head of such a file promises frames that are gone."""
    source, target = path.with_suffix(".source"), path.with_suffix(".web")
    path.rename(source)
    with av.open(str(source)) as old, av.open(str(target), "w", "mp4", options={"movflags": "faststart"}) as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        for packet in old.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                new.mux(packet)
    source.unlink()
    cut(target)
    target.rename(path)


def make_page(path: Path) -> None:
    path.write_text("<!doctype html><title>404</title>", encoding="utf-8")


def make_playlist(path: Path) -> None:
    other = path.with_name("a red bicycle-1.mp4")
    path.write_text(f"ffconcat version 1.0\nfile '{other.name}'\n", encoding="utf-8")


def make_one_frame(path: Path) -> None:
    draw_video(path, 0, frames=1)


def make_outside_link(path: Path) -> None:
    outside = path.parent.parent / "outside.mp4"
    path.rename(outside)
    path.symlink_to(outside)


def make_dead_link(path: Path) -> None:
    path.unlink()
    path.symlink_to("nowhere.mp4")


def make_circle(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.name)


def make_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def make_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (cut, "cannot be decoded"),
        (cut_after_its_index, "cannot be decoded"),
        (empty, "the file is empty"),
        (make_page, "cannot be decoded"),
        (make_playlist, "cannot be decoded"),
        (make_one_frame, "1 frames where 2 are needed"),
        (make_outside_link, "a link out of the folder, to"),
        (make_dead_link, "a link to nothing"),
        (make_circle, "a link to nothing"),
        (make_folder, "it is no file"),
        (make_pipe, "it is no file"),
    ],
)
@pytest.mark.parametrize("score", [score_official, score_custom])
def test_a_video_that_cannot_be_read_is_named_and_nothing_is_scored(
    bench: Bench, spoil: object, said: str, score: object
) -> None:
    assert callable(spoil)
    assert callable(score)
    spoil(bench.videos / COLOR[2])
    expect(score(bench), ExitCode.INCOMPLETE, "1 unreadable:", f"{COLOR[2]}: ", said)
    assert bench.calls() == []
    assert {path.name for path in bench.videos.iterdir()} == {*COLOR}


def test_a_cover_picture_is_refused_where_other_code_would_take_it_for_the_video(bench: Bench) -> None:
    with_cover(bench.videos / COLOR[2])
    said = f"color: {COLOR[2]}: its official code may take its cover picture for it: remove it"
    expect(score_official(bench), ExitCode.INCOMPLETE, said)
    assert bench.calls() == []


def test_videos_of_any_honest_kind_are_read(bench: Bench) -> None:
    draw_video(bench.videos / COLOR[0], 7, frames=8)
    grey = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 1), dtype=np.uint8).repeat(3, axis=3)
    write_as(bench.videos / COLOR[1], grey, "gray")
    odd = np.random.default_rng(1).integers(0, 256, (4, 33, 47, 3), dtype=np.uint8)
    write_as(bench.videos / COLOR[2], odd, "yuv444p")
    write_video(bench.videos / COLOR[3], odd[:, :32, :32], 1)
    inside = bench.videos / "kept"
    inside.mkdir()
    (bench.videos / COLOR[4]).rename(inside / "fifth.mp4")
    (bench.videos / COLOR[4]).symlink_to(inside / "fifth.mp4")
    expect(score_official(bench), ExitCode.OK)
    kept = kept_result(bench.output, "color")
    assert kept is not None
    assert {*kept.videos} == {*COLOR}


def write_as(path: Path, frames: np.ndarray[tuple[int, ...], np.dtype[np.uint8]], pixel_format: str) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=8)
        assert isinstance(stream, av.VideoStream)
        stream.height, stream.width, stream.pix_fmt = frames.shape[1], frames.shape[2], pixel_format
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))


def test_names_of_another_pattern_are_missing_and_extra(bench: Bench) -> None:
    (bench.videos / COLOR[0]).rename(bench.videos / "0-a red bicycle.mp4")
    expect(
        score_official(bench), ExitCode.INCOMPLETE, "1 missing:\n  a red bicycle-0", "1 extra:\n  0-a red bicycle.mp4"
    )


def test_two_videos_that_changed_names_are_scored_again(bench: Bench) -> None:
    expect(score_official(bench), ExitCode.OK)
    first, second, other = (bench.videos / name for name in (COLOR[0], COLOR[1], "other"))
    for old, new in ((first, other), (second, first), (other, second)):
        old.rename(new)
    assert bench.calls() == ["color"]
    expect(score_official(bench), ExitCode.OK)
    assert bench.calls() == ["color"]


def test_two_suffixes_of_one_name_are_not_chosen_between(bench: Bench) -> None:
    shutil.copyfile(bench.videos / COLOR[0], bench.videos / "a red bicycle-0.gif")
    said = "1 duplicate:\n  a red bicycle-0.gif and a red bicycle-0.mp4"
    expect(score_official(bench), ExitCode.INCOMPLETE, said)
    expect(score_custom(bench), ExitCode.INCOMPLETE, said)


def test_a_suffix_in_capitals_is_never_left_out_in_silence(bench: Bench) -> None:
    (bench.videos / COLOR[0]).rename(bench.videos / "a red bicycle-0.MP4")
    expect(score_custom(bench), ExitCode.INCOMPLETE, "a red bicycle-0.MP4: ", "in small letters: rename it")
    expect(
        score_official(bench), ExitCode.INCOMPLETE, "1 missing:\n  a red bicycle-0", "1 extra:\n  a red bicycle-0.MP4"
    )


def test_accents_are_the_same_however_a_file_system_stores_them(bench: Bench) -> None:
    text = 'un café à l\'aube; $(rm -rf ~) "jour" 日の出 🚲'
    entries = [{"prompt_en": unicodedata.normalize("NFC", text), "dimension": ["color"], "auxiliary_info": {"a": "b"}}]
    bench.prompt_file.write_text(json.dumps(entries), encoding="utf-8")
    for index, name in enumerate(COLOR):
        stored = unicodedata.normalize("NFD", text)
        (bench.videos / name).rename(bench.videos / f"{stored}-{index}.mp4")
    expect(score_official(bench, "--json"), ExitCode.OK)
    kept = kept_result(bench.output, "color")
    assert kept is not None
    assert len(kept.videos) == 5


def test_a_name_that_is_not_unicode_is_shown_escaped(bench: Bench) -> None:
    shutil.copyfile(bench.videos / COLOR[0], os.fsencode(bench.videos) + b"/caf\xe9.mp4")
    expect(score_custom(bench), ExitCode.INCOMPLETE, "caf\\udce9.mp4: its name is not Unicode: rename it")


@pytest.mark.parametrize("prompt", ["either/or", "a\\0b".replace("\\0", "\0"), "x" * 260])
def test_a_prompt_that_cannot_be_a_file_name_is_refused(bench: Bench, prompt: str) -> None:
    bench.prompt_file.write_text(json.dumps([{"prompt_en": prompt, "dimension": ["color"]}]), encoding="utf-8")
    expect(score_official(bench), ExitCode.USAGE, "cannot be a file's name")


def test_folders_that_are_none(bench: Bench) -> None:
    for path in bench.videos.iterdir():
        path.unlink()
    expect(score_official(bench), ExitCode.INCOMPLETE, "holds no .mp4 or .gif videos")
    bench.videos.rmdir()
    expect(score_official(bench), ExitCode.USAGE, "cannot be listed (No such file or directory)")
    bench.videos.touch()
    expect(score_official(bench), ExitCode.USAGE, "cannot be listed (Not a directory)")


def test_an_output_that_cannot_be_written_is_said_before_anything_runs(bench: Bench) -> None:
    bench.output.touch()
    expect(score_official(bench), ExitCode.USAGE, "nothing can be written in", "give another place with -o")
    assert bench.calls() == []
    prompts = ("vbench", "prompts", "--mode", "t2v", "--prompts", bench.prompt_file, "-o")
    expect(invoke(*prompts, bench.videos), ExitCode.USAGE, "is a folder")


def test_a_dimension_that_does_not_exist(bench: Bench) -> None:
    expect(
        score_custom(bench, "temporal_flicker"),
        ExitCode.USAGE,
        "no VBench dimension temporal_flicker; there are subject",
    )
    expect(score_custom(bench, "scene"), ExitCode.USAGE, "scene: not scored in mode custom")


def test_what_a_dimension_cannot_take_is_said_before_anything_runs(bench: Bench) -> None:
    draw_video(bench.videos / COLOR[0], 3, frames=2)
    shutil.copyfile(bench.videos / COLOR[1], bench.videos / "moving-9.gif")
    done = score_custom(bench, "subject_consistency", "motion_smoothness", "dynamic_degree")
    expect(done, ExitCode.INCOMPLETE, f"motion_smoothness: {COLOR[0]}: 2 frames where it needs 3")
    expect(done, ExitCode.INCOMPLETE, "dynamic_degree: moving-9.gif: its official code reads .mp4 only")
    expect(done, ExitCode.INCOMPLETE, f"dynamic_degree: {COLOR[2]}: 32 pixels high or wide, its network needs 121")
    assert bench.calls() == []
    expect(score_custom(bench, "subject_consistency"), ExitCode.OK)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"\n<!DOCTYPE html><title>Sign in</title>", "is a web page"),
        (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "is a web page"),
        (b"", "is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "is a Git LFS pointer"),
        (b"PK\x03\x04" + b"\0" * 600, "is cut off"),
        (b'{"error": "not found"}', "holds no PyTorch weights"),
    ],
)
def test_a_weight_file_that_is_something_else_is_named(bench: Bench, tmp_path: Path, content: bytes, said: str) -> None:
    weights = tmp_path / "weights" / "pyiqa_model" / "musiq_spaq_ckpt-358bb6af.pth"
    weights.parent.mkdir(parents=True)
    weights.write_bytes(content)
    expect(score_custom(bench, "imaging_quality"), ExitCode.USAGE, f"imaging_quality: {weights} {said}")
    assert bench.calls() == []
    ((what, step),) = examine_dimensions(Environment(tmp_path / "env"))["imaging_quality"].items()
    assert said in what
    assert step.startswith("curl -L")
    write_weights(weights)
    assert weight_fault(weights) is None
