"""Clips from .tar shards: read in place, and every wrong sample named with its shard."""

from __future__ import annotations

import io
import json
import pickle
import tarfile
from collections.abc import Mapping
from pathlib import Path

import av
import fsspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vdmini.latents import UnreadableClipError
from vdmini_bench.data.captioned import ClipFormat
from vdmini_bench.data.synthetic import draw_clip
from vdmini_bench.data.video import write_video
from vdmini_bench.data.webdataset import read_webdataset
from vdmini_bench.errors import IncompleteError, SuiteError

FORMAT = ClipFormat(frames=10, frames_per_second=7, width=32, height=32)


@pytest.fixture(scope="session")
def encoded(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The same drawn clip in every container that shards hold."""
    folder = tmp_path_factory.mktemp("encoded")
    frames = draw_clip("Rise", 1, 0).frames
    for suffix in ("mp4", "avi", "mkv"):
        write_video(folder / f"clip.{suffix}", frames, 7)
    with av.open(str(folder / "clip.webm"), "w") as container:
        stream = container.add_stream("libvpx", rate=7, options={"crf": "4", "b": "4M"})
        stream.height, stream.width, stream.pix_fmt = 32, 32, "yuv420p"
        stream.codec_context.thread_count = 1
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
    return {path.suffix[1:]: path.read_bytes() for path in folder.iterdir()}


def pack(path: Path, members: Mapping[str, bytes], kind: int = tarfile.PAX_FORMAT) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=kind) as tar:
        for name, content in members.items():
            # A name may be packed twice: whatever follows a space is dropped.
            entry = tarfile.TarInfo(name.partition(" ")[0])
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return path


def refusal(pattern: object) -> str:
    with pytest.raises((SuiteError, IncompleteError)) as caught:
        read_webdataset(str(pattern), FORMAT)
    if isinstance(caught.value, IncompleteError):
        return "\n".join(map(str, caught.value.problems))
    return str(caught.value)


@pytest.mark.parametrize("kind", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_every_kind_of_sample_is_read_in_order(tmp_path: Path, encoded: dict[str, bytes], kind: int) -> None:
    deep = "/".join(["folder.with.dots"] * 8)
    members = {
        "000.mp4": encoded["mp4"],
        "000.txt": b" a red disc\n",
        "001.json": json.dumps({"caption": "ein grüner Ring", "width": 32}).encode(),
        "001.jpg": b"a preview",
        "001.AVI": encoded["avi"],
        "README": b"about",
        "._000.mp4": b"what a file manager left",
        f"{deep}/000.mkv": encoded["mkv"],
        f"{deep}/000.txt": b"both: the text counts",
        f"{deep}/000.json": b"no json",
        "002.webm": encoded["webm"],
        "002.txt": b"d",
    }
    videos = read_webdataset(str(pack(tmp_path / "train.tar", members, kind)), FORMAT)
    assert list(videos.names) == [f"train.tar/{key}" for key in ("000", "001", f"{deep}/000", "002")]
    captions = [video.caption for video in videos.videos]
    assert captions == ["a red disc", "ein grüner Ring", "both: the text counts", "d"]
    drawn = draw_clip("Rise", 1, 0).frames.astype(int)
    # From the end, so that nothing depends on what was read before.
    for index in (3, 2, 1, 0):
        clip = videos.clip(index)
        assert (clip.name, clip.prompt, clip.seed) == (videos.names[index], captions[index], index)
        assert np.abs(clip.frames - drawn).mean() < (0.001 if index == 2 else 6)
    assert pickle.loads(pickle.dumps(videos)) == videos
    assert [path.name for path in tmp_path.iterdir()] == ["train.tar"], "nothing is unpacked"


def sample(encoded: dict[str, bytes], key: str) -> dict[str, bytes]:
    return {f"{key}.avi": encoded["avi"], f"{key}.txt": key.encode()}


def test_shards_are_named_by_ranges_and_globs(tmp_path: Path, encoded: dict[str, bytes]) -> None:
    for number in range(8, 12):
        for folder in ("a", "b"):
            pack(tmp_path / folder / f"train-{number:04d}.tar", sample(encoded, f"k{number}"))
    (tmp_path / "a" / "train-0008.txt").touch()

    def names(pattern: str) -> list[str]:
        return list(read_webdataset(f"{tmp_path}/{pattern}", FORMAT).names)

    assert names("a/train-{0009..0011}.tar") == [f"train-{n:04d}.tar/k{n}" for n in (9, 10, 11)]
    assert names("a/train-00{10..11}.tar") == names("a/train-001?.tar") == [f"train-{n:04d}.tar/k{n}" for n in (10, 11)]
    # The same key in another shard is another clip.
    everywhere = [f"{folder}/train-{n:04d}.tar/k{n}" for folder in "ab" for n in range(8, 12)]
    assert names("*/train-*.tar") == names("**/*.tar") == everywhere
    (tmp_path / "a" / "set[1].tar").write_bytes((tmp_path / "a" / "train-0008.tar").read_bytes())
    assert names("a/set[1].tar") == ["set[1].tar/k8"]


def test_wrong_patterns_are_refused(tmp_path: Path, encoded: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    pack(tmp_path / "train-08.tar", sample(encoded, "k"))
    assert f"{tmp_path}/train-09.tar: no such shard" in refusal(tmp_path / "train-{08..12}.tar")
    assert f"{tmp_path}/train-*.zip: no such shard" in refusal(tmp_path / "train-*.zip")
    assert "no such shard" in refusal(tmp_path)
    assert "no such shard" in refusal(tmp_path / "train-{1..9999999999999}.tar")
    assert "runs backwards" in refusal(tmp_path / "train-{09..08}.tar")
    assert "train**" in refusal(tmp_path / "train**x.tar")
    monkeypatch.chdir(tmp_path)
    assert list(read_webdataset("train-{08..08}.tar", FORMAT).names) == ["train-08.tar/k"]


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ({"a.txt": b"x"}, "0 videos (it has .txt): pack one of .mp4, .avi, .mkv, .webm"),
        ({"a.v2.mp4": b"", "a.txt": b"x"}, "0 videos (it has .v2.mp4, .txt)"),
        ({"a.mp4": b"", "a.avi": b"", "a.txt": b"x"}, "2 videos (it has .mp4, .avi, .txt)"),
        ({"a.mp4": b""}, "no caption: pack a .txt, or a .json with `caption`"),
        ({"a.mp4": b"", "a.txt": b"x", "a.mp4 again": b""}, "comes twice with .mp4"),
        ({"a.mp4": b"", "a.txt": b"x", "a.TXT": b"y"}, "comes twice with .txt"),
        ({"a.mp4": b"", "a.txt": b" \n"}, "its caption is ' \\n': write a text"),
        ({"a.mp4": b"", "a.txt": b"caf\xe9"}, "its .txt:1: not UTF-8"),
        ({"a.mp4": b"", "a.json": b'{"caption": "caf\xe9"}'}, "its .json:1: not UTF-8"),
        ({"a.mp4": b"", "a.json": b'{"caption": null}'}, "its caption is None"),
        ({"a.mp4": b"", "a.json": b'{"text": "x"}'}, "its .json is no object with `caption`"),
        ({"a.mp4": b"", "a.json": b'["caption"]'}, "its .json is no object with `caption`"),
        ({"a.mp4": b"", "a.json": b"[" * 100_000}, "its .json is no object with `caption`"),
        ({"a.mp4": b"", "a.json": b"{"}, "its .json is no object with `caption`"),
        ({"a.mp4": b"", "a.txt": b"x" * (2 << 20)}, "its .txt has 2097152 bytes: a caption has 1048576 at most"),
    ],
)
def test_a_wrong_sample_is_named_with_its_shard(
    tmp_path: Path, encoded: dict[str, bytes], members: dict[str, bytes], said: str
) -> None:
    path = pack(tmp_path / "s.tar", {**sample(encoded, "fine"), **members})
    assert refusal(path).startswith(f"{path}: sample 'a': {said}")


def test_wrong_samples_of_every_shard_are_shown(tmp_path: Path, encoded: dict[str, bytes]) -> None:
    for shard in ("0", "1"):
        pack(tmp_path / f"{shard}.tar", {f"{number}.txt": b"x" for number in range(6)} | sample(encoded, "fine"))
    lines = refusal(tmp_path / "{0..1}.tar").splitlines()
    assert lines[0].startswith(f"{tmp_path}/0.tar: sample '0'")
    assert lines[6].startswith(f"{tmp_path}/1.tar: sample '0'")
    assert len(lines) == 12


def test_samples_that_lack_something_are_left_out_where_that_is_asked_for(
    tmp_path: Path, encoded: dict[str, bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    lacking = {"a.txt": b"its download failed", "b.mp4": encoded["mp4"], "c.mp4": b"", "c.txt": b"zero bytes"}
    path = pack(tmp_path / "s.tar", {**sample(encoded, "fine"), **lacking, "d.mkv": encoded["mkv"], "d.txt": b"d"})
    with pytest.raises(IncompleteError) as caught:
        read_webdataset(str(path), FORMAT)
    assert caught.value.exit_code == 3
    assert [str(problem).partition("sample ")[2][:3] for problem in caught.value.problems] == ["'a'", "'b'", "'c'"]
    videos = read_webdataset(str(path), FORMAT, skip_unreadable=True)
    assert list(videos.names) == ["s.tar/fine", "s.tar/d"]
    assert (videos.clip(1).frames == draw_clip("Rise", 1, 0).frames).all()
    said = capsys.readouterr().err
    assert said.startswith("warning: 3 of 5 clips are left out:")
    assert all(f"sample '{key}'" in said for key in "abc")
    with pytest.raises(IncompleteError):
        read_webdataset(str(pack(tmp_path / "none.tar", lacking)), FORMAT, skip_unreadable=True)


def test_special_files_and_empty_shards_are_refused(tmp_path: Path, encoded: dict[str, bytes]) -> None:
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE):
        with tarfile.open(tmp_path / "link.tar", "w") as tar:
            entry = tarfile.TarInfo("a.mp4")
            entry.type, entry.linkname = kind, "/etc/hostname"
            tar.addfile(entry)
        assert f"{tmp_path}/link.tar: 'a.mp4' is a link or another special file" in refusal(tmp_path / "link.tar")
    assert "the shards hold no samples" in refusal(pack(tmp_path / "none.tar", {"README": b"x"}))
    assert "the shards hold no samples" in refusal(pack(tmp_path / "nothing.tar", {}))
    (tmp_path / "zero.tar").touch()
    assert f"{tmp_path}/zero.tar is no whole .tar" in refusal(tmp_path / "zero.tar")
    (tmp_path / "text.tar").write_text("this is no tar\n" * 100)
    assert f"{tmp_path}/text.tar is no whole .tar" in refusal(tmp_path / "text.tar")
    with tarfile.open(tmp_path / "packed.tar", "w:gz") as tar:
        tar.addfile(tarfile.TarInfo("a.mp4"))
    assert "uncompressed" in refusal(tmp_path / "packed.tar")


@pytest.fixture(scope="module")
def shard(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rest = {f"{key}.{suffix}": key.encode() * 300 for key in "bc" for suffix in ("mp4", "txt")}
    return pack(tmp_path_factory.mktemp("shard") / "whole.tar", {"a.mp4": b"video", "a.txt": b"a", **rest})


@given(st.integers(0, 20))
@settings(deadline=None)
def test_a_shard_cut_at_any_block_is_refused(shard: Path, blocks: int) -> None:
    # Six headers, six contents of one block: cut anywhere before the mark of its end, tarfile itself may be silent.
    content = shard.read_bytes()
    cut = shard.with_name("cut.tar")
    cut.write_bytes(content[: blocks * 512])
    if blocks <= 12:
        assert str(cut) in refusal(cut)
    else:
        assert read_webdataset(str(cut), FORMAT).videos


@given(place=st.floats(0, 1, exclude_max=True), value=st.integers(1, 255), cut=st.booleans())
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_damage_is_refused_or_harmless(shard: Path, place: float, value: int, cut: bool) -> None:
    """A damaged header never loses a sample in silence."""
    content = bytearray(shard.read_bytes())
    position = int(place * len(content))
    content[position] ^= value
    damaged = shard.with_name("damaged.tar")
    damaged.write_bytes(content[:position] if cut else content)
    names, said = [], ""
    try:
        names = list(read_webdataset(str(damaged), FORMAT).names)
    except (SuiteError, IncompleteError) as error:
        said = str(error)
    assert len(names) == 3 or str(damaged) in said


def test_joined_shards_are_not_read_in_part(shard: Path, tmp_path: Path) -> None:
    joined = tmp_path / "joined.tar"
    joined.write_bytes(shard.read_bytes() * 2)
    assert "more follows its end at byte" in refusal(joined)


def test_unreadable_videos_are_named(tmp_path: Path, encoded: dict[str, bytes]) -> None:
    session = b"v=0\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\na=rtpmap:96 H264/90000\n"
    videos = {"cut": encoded["avi"][:5000], "empty": b"\0", "session": session, "fine": encoded["avi"]}
    members = {f"{key}.avi": content for key, content in videos.items()} | {f"{key}.txt": b"x" for key in videos}
    path = pack(tmp_path / "s.tar", members)
    clips = read_webdataset(str(path), FORMAT)
    for index, key in enumerate(("cut", "empty", "session")):
        with pytest.raises(UnreadableClipError, match=r"cannot be decoded|frames where") as caught:
            clips.clip(index)
        assert caught.value.name == f"s.tar/{key}"
        assert f"{path}/{key}.avi" in caught.value.reason
    assert clips.clip(3).frames.shape == (10, 32, 32, 3)
    path.unlink()
    with pytest.raises(UnreadableClipError, match="No such file"):
        clips.clip(3)


def test_shards_of_another_place_are_copied_once(
    encoded: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("VDMINI_CACHE", str(tmp_path / "cache"))
    place = fsspec.filesystem("memory")
    for number in range(2):
        members = {f"{number}.mp4": encoded["mp4"], f"{number}.txt": f"clip {number}".encode()}
        place.pipe_file(f"/bucket/train-{number}.tar", pack(tmp_path / f"{number}.tar", members).read_bytes())
    for pattern in ("memory://bucket/train-*.tar", "memory://bucket/train-{0..1}.tar"):
        found = read_webdataset(pattern, FORMAT)
        assert [video.caption for video in found.videos] == ["clip 0", "clip 1"]
        assert found.names == ["train-0.tar/0", "train-1.tar/1"]
        assert found.clip(1).frames.shape == (10, 32, 32, 3)
    assert capsys.readouterr().err.count("fetch memory://") == 2
    assert "memory://bucket/val-0.tar: cannot be read" in refusal("memory://bucket/val-0.tar")
    assert "memory://bucket/val-*.tar: cannot be read" in refusal("memory://bucket/val-*.tar")
    assert "nowhere" in refusal("nowhere://bucket/train-0.tar")
