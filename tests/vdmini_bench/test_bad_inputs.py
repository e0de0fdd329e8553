"""Folders of videos and options that cannot be scored: each named, with its exit code, and nothing lost."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
from click.testing import CliRunner
from small_scoring import clip, fill, score

from vdmini_bench.cli import main
from vdmini_bench.data.video import read_frames, write_video
from vdmini_bench.errors import UnreadableVideoError

HTML = "<!DOCTYPE html><html><body>Sign in to download</body></html>"
pytestmark = pytest.mark.usefixtures("small_network")


def contents(folder: Path) -> dict[str, str]:
    """Every regular file below a folder with its hash."""
    files = [path for path in folder.rglob("*") if path.is_file() and os.access(path, os.R_OK)]
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def no_video(path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), dtype=np.int16), layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def playlist(folder: Path) -> None:
    """What FFmpeg would follow to another file."""
    (folder / "00.mp4").write_text(
        f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{folder / '01.mkv'}\n#EXT-X-ENDLIST\n"
    )


def picture(path: Path) -> None:
    with av.open(str(path.with_suffix(".png")), "w", format="image2") as container:
        stream = container.add_stream("png", rate=1)
        assert isinstance(stream, av.VideoStream)
        stream.height, stream.width, stream.pix_fmt = 32, 32, "rgb24"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(clip(0)[0], format="rgb24")))
        container.mux(stream.encode(None))
    path.with_suffix(".png").replace(path)


def replaced(change: Callable[[Path], object]) -> Callable[[Path], object]:
    """The first video removed, and something else done to the folder."""

    def spoil(folder: Path) -> None:
        (folder / "00.mkv").unlink()
        change(folder)

    return spoil


OUTSIDE = "outside.mkv"
BAD: dict[str, tuple[Callable[[Path], object], int, str]] = {
    "no such folder": (shutil.rmtree, 2, "no such folder"),
    "a file": (lambda folder: (shutil.rmtree(folder), folder.write_text("")), 2, "is a file: give its folder"),
    "an empty folder": (lambda folder: (shutil.rmtree(folder), folder.mkdir()), 2, "holds no videos"),
    "no videos": (lambda folder: [path.rename(path.with_suffix(".txt")) for path in folder.iterdir()], 2, "6 other"),
    "hidden videos": (lambda folder: [path.rename(folder / f".{path.name}") for path in folder.iterdir()], 2, "no vid"),
    "too few videos": (lambda folder: (folder / "00.mkv").unlink(), 2, "holds 5 videos where the protocol"),
    "an empty file": (lambda folder: (folder / "00.mkv").write_bytes(b""), 3, "00.mkv: the file is empty"),
    "a file cut short": (
        lambda folder: (folder / "00.mkv").write_bytes((folder / "00.mkv").read_bytes()[:3000]), 3, "00.mkv: "
    ),
    "a web page named .mp4": (replaced(lambda folder: (folder / "00.mp4").write_text(HTML)), 3, "00.mp4: cannot be de"),
    "a folder named .mkv": (replaced(lambda folder: (folder / "00.mkv").mkdir()), 2, "holds 5 videos where the"),
    "zeros": (lambda folder: (folder / "00.mkv").write_bytes(bytes(9999)), 3, "00.mkv: cannot be decoded"),
    "a picture named .avi": (replaced(lambda folder: picture(folder / "00.avi")), 3, "00.avi: "),
    "text": (lambda folder: (folder / "00.mkv").write_text("a web page"), 3, "00.mkv: cannot be decoded"),
    "a playlist": (replaced(playlist), 3, "00.mp4: cannot be decoded"),
    "sound alone": (replaced(lambda folder: no_video(folder / "00.mkv")), 3, "00.mkv: no video stream"),
    "one frame": (lambda folder: write_video(folder / "00.mkv", clip(0)[:1], 7), 3, "1 frames where the protocol"),
    "eight frames": (lambda folder: write_video(folder / "00.mkv", clip(0)[:8], 7), 3, "8 frames where the protocol"),
    "another rate": (lambda folder: write_video(folder / "00.mkv", clip(0), 25), 2, "00.mkv (25). Give --rates"),
    "several sizes": (lambda folder: write_video(folder / "00.mkv", clip(0, 64), 7), 2, "several sizes"),
    "tiny frames": (
        lambda folder: [write_video(path, clip(0)[:, :8, :8], 7) for path in folder.iterdir()], 2, "sides of 12 pixels"
    ),
    "a link out": (replaced(lambda folder: (folder / "00.mkv").symlink_to(folder.parent / OUTSIDE)), 2, "out of the"),
    "a broken link": (replaced(lambda folder: (folder / "00.mkv").symlink_to(folder / "gone.mkv")), 2, "is not there"),
    "a folder linked in": (lambda folder: (folder / "more").symlink_to(folder.parent), 2, "a link out of the folder"),
    "a pipe": (replaced(lambda folder: os.mkfifo(folder / "00.mkv")), 2, "neither a file nor a folder"),
    "a name that is no text": (
        lambda folder: (folder / "00.mkv").rename(folder / os.fsdecode(b"\xff.mkv")), 2, "not Unicode"
    ),
    "an unreadable file": (lambda folder: (folder / "00.mkv").chmod(0), 3, "00.mkv: cannot be opened"),
}  # fmt: skip


@pytest.mark.parametrize("kind", BAD)
def test_bad_input_is_named_with_its_exit_code(videos: Path, kind: str) -> None:
    spoil, code, said = BAD[kind]
    if kind == "an unreadable file" and os.geteuid() == 0:
        pytest.skip("root reads everything")
    write_video(videos.parent / OUTSIDE, clip(9), 7)
    spoil(videos)
    before = contents(videos) if videos.is_dir() else {}
    result = score(videos)
    assert result.exit_code == code, result.output
    assert said in result.stderr
    assert "Traceback" not in result.output
    assert result.stdout == ""
    assert not (videos.parent / "results" / "scores.csv").exists()
    assert before == (contents(videos) if videos.is_dir() else {})


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (("--against", "{videos}"), 2, "would be scored against itself"),
        (("--against", "{videos}/none"), 2, "no such folder"),
        (("--against", "{videos}/.."), 2, "move it out, or give a folder beside it"),
        (("--against", "{one}"), 2, "holds one video"),
        (("--profile", "smok"), 2, "did you mean 'smoke'?"),
        (("--suite", "{videos}/none.yaml"), 2, "cannot be read"),
        (("--set", "protocol.frames=8"), 2, "greater than or equal to 9"),
        (("--set", "protocol.preset=fvd"), 2, "no preset 'fvd'"),
        (("--rates", "guess"), 2, "'guess' is not one of"),
        (("--workers", "0"), 2, "--workers"),
        (("--set", "protocol.clips_per_block=1"), 2, "greater than or equal to 2"),
        (("--results", "{one}/00.mkv"), 4, "cannot be written"),
        (("--profile", "paper", "--rates", "ignore"), 2, "assets import ucf101"),
    ],
)
def test_bad_options_are_named_with_their_exit_code(
    videos: Path, tmp_path: Path, options: tuple[str, ...], code: int, said: str
) -> None:
    fill(tmp_path / "one", 1)
    filled = [each.format(videos=videos, one=tmp_path / "one") for each in options]
    result = score(videos, *filled)
    assert result.exit_code == code, result.output
    assert said in result.stderr
    assert "Traceback" not in result.output


def test_what_was_mended_is_scored_and_what_was_done_is_kept(videos: Path, tmp_path: Path) -> None:
    against = fill(tmp_path / "real", 4, start=50)
    good = (videos / "03.mkv").read_bytes()
    (videos / "03.mkv").write_bytes(good[:2000])
    refused = score(videos, "--against", against)
    assert refused.exit_code == 3
    assert "03.mkv" in refused.stderr
    (reference,) = (tmp_path / "results" / "work").glob("reference-*/done.json")
    before = reference.stat().st_mtime_ns
    (videos / "03.mkv").write_bytes(good)
    mended = score(videos, "--against", against, "--json")
    assert mended.exit_code == 0, mended.output
    assert reference.stat().st_mtime_ns == before


def test_an_unreadable_real_video_is_named(videos: Path, tmp_path: Path) -> None:
    against = fill(tmp_path / "real", 4, start=50)
    (against / "51.mkv").write_text(HTML)
    result = score(videos, "--against", against)
    assert result.exit_code == 3
    assert "51.mkv: cannot be decoded" in result.stderr


def test_grey_videos_are_scored(videos: Path) -> None:
    with av.open(str(videos / "00.mkv"), "w") as container:
        stream = container.add_stream("ffv1", rate=7)
        assert isinstance(stream, av.VideoStream)
        stream.height, stream.width, stream.pix_fmt = 32, 32, "gray"
        for frame in clip(0):
            grey = np.ascontiguousarray(frame.mean(axis=-1).astype(np.uint8))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(grey, format="gray")))
        container.mux(stream.encode(None))
    result = score(videos, "--json")
    assert result.exit_code == 0, result.output


def test_videos_of_one_content_are_warned_of(videos: Path) -> None:
    for number in (1, 2):
        shutil.copy(videos / "00.mkv", videos / f"{number:02d}.mkv")
    result = score(videos, "--json")
    assert result.exit_code == 0, result.output
    assert "2 of 6 videos are copies of others" in " ".join(json.loads(result.stdout)["warnings"])


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("i3d-torchscript", HTML.encode(), "is a web page"),
        ("i3d-torchscript", b"", "is empty"),
        ("c3d-ucf101", b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "is a Git LFS pointer"),
        ("videomae-ssv2", b"GGUF" + bytes(60), "is a GGUF file"),
        ("c3d-ucf101", HTML.encode(), "download.pt is a web page"),
        ("c3d-ucf101", b"PK", "is no TorchScript file"),
        ("i3d-kinetics400", HTML.encode(), "is a web page"),
        ("i3d-kinetics400", b"other weights", "has sha256"),
        ("pytorch-fid-inception", HTML.encode(), "is a web page"),
        ("ucf101", b"", "holds no UCF-101/<Class>"),
    ],
)
def test_what_is_no_weights_is_not_imported(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    (tmp_path / "download.pt").write_bytes(content)
    result = CliRunner().invoke(main, ["assets", "import", name, str(tmp_path / "download.pt")])
    assert result.exit_code == 4, result.output
    assert said in result.stderr
    assert "Traceback" not in result.output
    assert not list((tmp_path / "cache").glob("*.sha256"))


def test_a_video_whose_frames_change_size_is_named(videos: Path) -> None:
    # Two streams of raw MPEG-4 one after the other: what a camera that was switched over leaves.
    parts = []
    for size in (32, 64):
        part = videos.parent / f"{size}.avi"
        write_video(part, clip(0, size), 7)
        with av.open(str(part)) as source, av.open(str(part.with_suffix(".m4v")), "w", format="m4v") as target:
            stream = target.add_stream_from_template(source.streams.video[0])
            for packet in source.demux(video=0):
                if packet.dts is not None:
                    packet.stream = stream
                    target.mux(packet)
        parts.append(part.with_suffix(".m4v").read_bytes())
    joined = videos.parent / "joined.m4v"
    joined.write_bytes(b"".join(parts))
    with pytest.raises(UnreadableVideoError, match=r"joined\.m4v: its frames change size"):
        read_frames(joined, 12)
    assert read_frames(joined, 10).shape == (10, 32, 32, 3)
