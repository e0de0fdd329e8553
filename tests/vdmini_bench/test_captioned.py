"""Folders of videos with captions: what is read, and what each wrong row says."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from vdmini.latents import UnreadableClipError
from vdmini_bench.data.captioned import CaptionedVideos, ClipFormat, read_captioned
from vdmini_bench.data.preprocessing import resize_clip
from vdmini_bench.data.synthetic import draw_clip, write_dataset
from vdmini_bench.data.video import write_video
from vdmini_bench.errors import IncompleteError, SuiteError

FORMAT = ClipFormat(frames=10, frames_per_second=7, width=32, height=32)
ROWS = [("a.mkv", "a red disc"), ("b.mkv", 'a "blue", large\nsquare'), ("below/c d.mkv", "ein grüner Ring 环")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three lossless clips, one of them in a folder below, and a file outside."""
    folder = tmp_path_factory.mktemp("data") / "videos"
    for number, (name, _) in enumerate(ROWS):
        write_video(folder / name, draw_clip("Rise", 1, number).frames, 7)
    (folder.parent / "outside.mkv").write_bytes((folder / "a.mkv").read_bytes())
    return folder


def write(path: Path, rows: Sequence[tuple[Any, Any]], columns: tuple[str, str] = ("file", "caption")) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".csv":
        with path.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([columns, *rows])
    elif path.suffix == ".jsonl":
        lines = [json.dumps(dict(zip(columns, row, strict=True))) for row in rows]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    else:
        values = {column: [row[place] for row in rows] for place, column in enumerate(columns)}
        parquet.write_table(pyarrow.table(values), path)
    return path


def refusal(folder: Path, path: Path | None) -> str:
    with pytest.raises((SuiteError, IncompleteError)) as caught:
        read_captioned(folder, path, FORMAT)
    if isinstance(caught.value, IncompleteError):
        return "\n".join(map(str, caught.value.problems))
    return str(caught.value)


def csv_refusal(folder: Path, tmp_path: Path, content: str | bytes) -> str:
    path = tmp_path / "c.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return refusal(folder, path).replace(f"{tmp_path}/", "")


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
@pytest.mark.parametrize("columns", [("file", "caption"), ("video", "text"), ("path", "prompt"), ("file_name", "text")])
def test_every_kind_of_file_gives_the_same_clips(
    folder: Path, tmp_path: Path, suffix: str, columns: tuple[str, str]
) -> None:
    videos = read_captioned(folder, write(tmp_path / f"list{suffix}", ROWS, columns), FORMAT)
    assert list(videos.names) == [name for name, _ in ROWS]
    for number, (name, caption) in enumerate(ROWS):
        clip = videos.clip(number)
        assert (clip.name, clip.prompt, clip.seed) == (name, caption, number)
        assert (clip.frames == draw_clip("Rise", 1, number).frames).all()


def test_other_columns_blank_lines_marks_and_spaces_do_no_harm(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "captions.csv"
    path.write_text("\ufeffid, caption ,file\r\n\r\n1, one ,a.mkv\r\n,,\r\n2,two, below/../b.mkv\r\n", newline="")
    videos = read_captioned(folder, path, FORMAT)
    assert [(video.name, video.caption) for video in videos.videos] == [("a.mkv", "one"), ("b.mkv", "two")]
    lines = tmp_path / "captions.jsonl"
    lines.write_bytes(b'{"caption": "one", "file": "a.mkv", "id": [1, {}]}\r\n\n  {"file": "b.mkv", "caption": "two"}')
    assert read_captioned(folder, lines, FORMAT) == videos
    absolute = write(tmp_path / "absolute.csv", [(folder / "a.mkv", "one"), (folder / "b.mkv", "two")])
    assert read_captioned(folder, absolute, FORMAT) == videos


def test_the_only_captions_of_the_folder_are_found(tmp_path: Path) -> None:
    write_dataset(tmp_path, 1, 1)
    (tmp_path / "captions.csv").rename(tmp_path / "UCF-101" / "captions.csv")
    videos = read_captioned(tmp_path / "UCF-101", None, FORMAT)
    assert len(videos.names) == 250
    index = list(videos.names).index("Spin/v_Spin_g09_c01.avi")
    drawn = draw_clip("Spin", 9, 1)
    clip = videos.clip(index)
    assert clip.prompt == drawn.caption
    assert np.abs(clip.frames.astype(int) - drawn.frames).mean() < 5
    write(tmp_path / "UCF-101" / "captions.jsonl", [])
    said = refusal(tmp_path / "UCF-101", None)
    assert "holds captions.csv and captions.jsonl: name the captions file" in said
    (tmp_path / "empty").mkdir()
    assert "holds no captions" in refusal(tmp_path / "empty", None)
    assert "no such folder" in refusal(tmp_path / "none", None)


def test_frames_are_cut_about_the_centre_and_never_squeezed(tmp_path: Path) -> None:
    # Columns tell their number: of 48 columns, a square keeps the middle 32.
    wide = np.broadcast_to((np.arange(48, dtype=np.uint8) * 5)[None, None, :, None], (3, 32, 48, 3))
    cut = ClipFormat(3, None, 32, 32).fit(wide)
    assert (cut == wide[:, :, 8:40]).all()
    tall = ClipFormat(3, None, 32, 32).fit(wide.transpose(0, 2, 1, 3))
    assert (tall == wide.transpose(0, 2, 1, 3)[:, 8:40]).all()
    halved = ClipFormat(3, None, 16, 16).fit(wide)
    assert (halved == resize_clip(wide[:, :, 8:40], 16, 16)).all()
    # The whole picture stays where the ratio is the video's own.
    assert (ClipFormat(3, None, 24, 16).fit(wide) == resize_clip(wide, 24, 16)).all()
    write_video(tmp_path / "wide.mkv", np.ascontiguousarray(wide), 7)
    clip = read_captioned(tmp_path, write(tmp_path / "captions.csv", [("wide.mkv", "bars")]), ClipFormat(2, 7, 32, 32))
    assert (clip.clip(0).frames == wide[:2, :, 8:40]).all()


@given(st.integers(1, 80), st.integers(1, 80), st.integers(1, 40), st.integers(1, 40))
def test_any_size_is_cut_to_any_other_about_its_centre(height: int, width: int, to_height: int, to_width: int) -> None:
    # Each pixel tells its row and column.
    frames = np.stack([*np.indices((height, width)), np.zeros((height, width))], axis=-1).astype(np.uint8)[None]
    fitted = ClipFormat(1, None, to_width, to_height).fit(frames)
    assert fitted.shape == (1, to_height, to_width, 3)
    assert np.abs(fitted.mean(axis=(0, 1, 2))[:2] - [(height - 1) / 2, (width - 1) / 2]).max() <= 1.5


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "c.csv:1: no column for the file (the columns there: none): have one of file, video, path, file_name"),
        ("file,caption\n", "c.csv:1: it lists no videos"),
        ("\nclip,caption\n", "c.csv:2: no column for the file (the columns there: 'clip', 'caption')"),
        ("file,title\na.mkv,x\n", "c.csv:1: no column for the caption (the columns there: 'file', 'title')"),
        ("file,path,text\n", "c.csv:1: columns file and path all say the file"),
        ("file,text,text\n", "c.csv:1: columns text and text all say the caption"),
        ("file,caption\na.mkv,x\nz.mkv,y\n", "c.csv:3: no video 'z.mkv' in "),
        ("file,caption\na.mkv,x\nbelow,y\n", "c.csv:3: no video 'below' in "),
        ("file,caption\na.mkv,x\n\na.mkv,y\n", "c.csv:4: a.mkv is listed before, at c.csv:2"),
        ("file,caption\na.mkv,x\nbelow/../a.mkv,y\n", "c.csv:3: a.mkv is listed before, at c.csv:2"),
        ("file,caption\na.mkv, \n", "c.csv:2: the caption is ' ': write a text"),
        ("file,caption\n,x\n", "c.csv:2: the file is '': write a text"),
        ("file,caption\n../outside.mkv,x\n", "c.csv:2: '../outside.mkv' is outside"),
        ("file,caption\n/etc/hostname,x\n", "c.csv:2: '/etc/hostname' is outside"),
        ("file,caption\na.mkv,one, two\n", "c.csv:2: 3 fields where the header has 2"),
        ("file,caption\na.mkv\n", "c.csv:2: 1 fields where the header has 2"),
        ('file,caption\na.mkv,"x"y\n', "c.csv:2: "),
        ('file,caption\na.mkv,"two\nlines"\nz.mkv,y\n', "c.csv:4: no video 'z.mkv'"),
        ("file,caption\na.mkv,x\nb.mkv,caf\u00e9\n".encode("latin-1"), "c.csv:3: not UTF-8"),
        (f"file,caption\n{'a' * 5000},x\n", "c.csv:2: "),
        ("file,caption\na\0b,x\n", "c.csv:2: a null character"),
        ("file;caption\r\na.mkv;x\r\n", "c.csv:1: semicolons between the fields"),
        ("file\tcaption\na.mkv\tx\n", "c.csv:1: tabs between the fields"),
        ("file,caption\na.mkv,x\n".encode("utf-16"), "c.csv: cannot be read (UTF-16, "),
    ],
)
def test_a_wrong_csv_says_where_and_what(folder: Path, tmp_path: Path, content: str | bytes, said: str) -> None:
    assert csv_refusal(folder, tmp_path, content).startswith(said)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b"a.mkv, a disc", "no JSON"),
        (b'["a.mkv", "x"]', "no object"),
        (b'{"file": "a.mkv"}', "the caption is None"),
        (b'{"file": "a.mkv", "text": "x", "text": "y"}', "columns text and text all say the caption"),
        (b'{"file": "a.mkv", "caption": 3}', "the caption is 3"),
        (b'{"file": null, "caption": "x"}', "the file is None"),
        (b'{"file": "a.mkv", "caption": "\\ud800"}', "the caption is '\\ud800'"),
        (b'{"file": "a.mkv", "caption": "\xe9"}', "not UTF-8"),
        (b"[" * 100_000, "no JSON"),
        (b'{"file": "z.mkv", "caption": "x"}', "no video 'z.mkv'"),
    ],
)
def test_a_wrong_line_of_json_says_where_and_what(folder: Path, tmp_path: Path, line: bytes, said: str) -> None:
    path = tmp_path / "c.jsonl"
    path.write_bytes(b'{"file": "b.mkv", "caption": "fine"}\n\n' + line)
    assert refusal(folder, path).startswith(f"{path}:3: {said}")


def test_a_wrong_parquet_says_where_and_what(folder: Path, tmp_path: Path) -> None:
    path = write(tmp_path / "c.parquet", [("a.mkv", "x"), ("z.mkv", "y"), ("b.mkv", "")])
    lines = refusal(folder, path).splitlines()
    assert lines[0].startswith(f"{path}, row 2: no video 'z.mkv'")
    assert lines[1] == f"{path}, row 3: the caption is '': write a text"
    for columns, said in ((("clip", "text"), "'clip', 'text'"), (("file", "words"), "'file', 'words'")):
        assert said in refusal(folder, write(path, [("a.mkv", "x")], columns))
    assert "the caption is 3" in refusal(folder, write(path, [("a.mkv", 3)]))
    assert "the caption is None" in refusal(folder, write(path, [("a.mkv", None)]))
    assert "it lists no videos" in refusal(folder, write(path, []))
    latin = pyarrow.array([b"a", b"caf\xe9"], pyarrow.binary()).cast(pyarrow.string(), safe=False)
    parquet.write_table(pyarrow.table({"file": ["a.mkv", "b.mkv"], "text": latin}), path)
    assert refusal(folder, path).startswith(f"{path}, row 2: not UTF-8")
    path.write_text("file,caption\n")
    assert f"{path} is no Parquet file" in refusal(folder, path)


def test_other_files_are_refused(folder: Path, tmp_path: Path) -> None:
    assert "lists are read from .csv, .jsonl, .parquet" in refusal(folder, tmp_path / "captions.txt")
    for suffix in (".csv", ".jsonl", ".parquet"):
        assert "cannot be read" in refusal(folder, tmp_path / f"none{suffix}")
        (tmp_path / f"folder{suffix}").mkdir()
        assert "cannot be read" in refusal(folder, tmp_path / f"folder{suffix}")


@pytest.mark.skipif(os.name == "nt", reason="symlinks need rights there")
def test_links_do_not_lead_out_of_the_folder(folder: Path, tmp_path: Path) -> None:
    videos = tmp_path / "videos"
    videos.mkdir()
    (videos / "away.mkv").symlink_to(folder.parent / "outside.mkv")
    (videos / "up").symlink_to(folder)
    (videos / "round.mkv").symlink_to(videos / "round.mkv")
    for name in ("away.mkv", "up/a.mkv"):
        assert f"{name!r} is outside" in refusal(videos, write(tmp_path / "c.csv", [(name, "x")]))
    assert "round.mkv" in refusal(videos, write(tmp_path / "c.csv", [("round.mkv", "x")]))
    # The folder itself may be a link, and a link inside it may stay inside.
    (folder / "again.mkv").symlink_to("a.mkv")
    linked = read_captioned(videos / "up", write(tmp_path / "c.csv", [("again.mkv", "x")]), FORMAT)
    assert list(linked.names) == ["a.mkv"]


def test_many_problems_are_shown_at_once(folder: Path, tmp_path: Path) -> None:
    rows = [(f"{number}.mkv", "x") for number in range(25)]
    said = refusal(folder, write(tmp_path / "c.csv", rows)).splitlines()
    assert [line.partition(": no video")[0] for line in said] == [f"{tmp_path}/c.csv:{n}" for n in range(2, 27)]
    rows = [(f"../{number}.mkv", "x") for number in range(25)]
    said = refusal(folder, write(tmp_path / "c.csv", rows)).splitlines()
    assert [line.partition(": '../")[0] for line in said[:-1]] == [f"{tmp_path}/c.csv:{n}" for n in range(2, 12)]
    assert said[-1] == "and 15 more"


def test_rows_that_lack_something_are_left_out_where_that_is_asked_for(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "empty.mkv").touch()
    rows = [("z.mkv", "gone"), ("a.mkv", "fine"), ("empty.mkv", "nothing in it"), ("b.mkv", " ")]
    path = write(tmp_path / "c.csv", rows)
    with pytest.raises(IncompleteError) as caught:
        read_captioned(folder, path, FORMAT)
    assert caught.value.exit_code == 3
    assert [problem.path.name for problem in caught.value.problems] == ["c.csv:2", "c.csv:4", "c.csv:5"]
    videos = read_captioned(folder, path, FORMAT, skip_unreadable=True)
    assert [(video.name, video.caption) for video in videos.videos] == [("a.mkv", "fine")]
    said = capsys.readouterr().err
    assert said.startswith("warning: 3 of 4 clips are left out:")
    assert all(f"c.csv:{line}: " in said for line in (2, 4, 5))
    # What is wrong with the list itself is not skipped, nor are all of its rows.
    for wrong in ([("a.mkv", "x"), ("../outside.mkv", "y")], [("a.mkv", "x"), ("a.mkv", "y")], [("z.mkv", "gone")]):
        with pytest.raises((SuiteError, IncompleteError)):
            read_captioned(folder, write(path, wrong), FORMAT, skip_unreadable=True)


@pytest.fixture
def videos(folder: Path, tmp_path: Path) -> CaptionedVideos:
    for name, _ in ROWS:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    return read_captioned(tmp_path, write(tmp_path / "captions.csv", ROWS), FORMAT)


def test_unreadable_videos_are_named(videos: CaptionedVideos, tmp_path: Path) -> None:
    (tmp_path / "a.mkv").unlink()
    (tmp_path / "b.mkv").write_bytes((tmp_path / "b.mkv").read_bytes()[:300])
    (tmp_path / "below" / "c d.mkv").write_bytes(b"")
    for number, (name, _) in enumerate(ROWS):
        with pytest.raises(UnreadableClipError) as caught:
            videos.clip(number)
        assert caught.value.name == name
        assert str(tmp_path / name) in caught.value.reason


@pytest.mark.parametrize(
    "content",
    [
        b"v=0\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\na=rtpmap:96 H264/90000\n",
        b"ffconcat version 1.0\nfile a.mkv\n",
        b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\na.mkv\n#EXT-X-ENDLIST\n",
    ],
)
def test_a_playlist_under_a_videos_name_is_not_followed(
    videos: CaptionedVideos, tmp_path: Path, content: bytes
) -> None:
    # FFmpeg would listen on a network port for the first and open another file for the others.
    (tmp_path / "b.mkv").write_bytes(content)
    with pytest.raises(UnreadableClipError, match="cannot be decoded"):
        videos.clip(1)


NAMES = st.sampled_from(["file", "caption", "text", "path", "a.mkv", "b.mkv", "../outside.mkv", "", "x"])
TEXTS = st.one_of(NAMES, st.text(max_size=5))
CSV_FILES = (
    st.lists(st.lists(TEXTS, max_size=3).map(",".join), max_size=4)
    .map("\n".join)
    .map(lambda text: text.encode("utf-8", "surrogatepass"))
)
JSON_VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), TEXTS),
    lambda inner: st.one_of(st.lists(inner, max_size=2), st.dictionaries(TEXTS, inner, max_size=3)),
    max_leaves=5,
)
JSON_FILES = st.lists(JSON_VALUES.map(json.dumps), max_size=3).map("\n".join).map(str.encode)
FUZZ = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def read_or_refuse(folder: Path, path: Path) -> None:
    """Either every clip of it is a file of the folder with a caption, or the refusal names the file."""
    said, videos = "", ()
    try:
        videos = read_captioned(folder, path, FORMAT).videos
    except (SuiteError, IncompleteError) as error:
        said = str(error)
    assert bool(videos) != (str(path) in said)
    assert all(video.caption and video.path.is_relative_to(folder.resolve()) for video in videos)


@given(st.one_of(st.binary(max_size=40), CSV_FILES))
@example(b"file,caption\na.mkv,\x00")
@example(b"file,caption\n\xc3.mkv,a")
@example(b"text,path\na,b.mkv\n")
@FUZZ
def test_any_csv_is_read_or_refused(folder: Path, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "fuzz.csv").write_bytes(content)
    read_or_refuse(folder, tmp_path / "fuzz.csv")


@given(st.one_of(st.binary(max_size=40), JSON_FILES))
@example(b"1" * 5000)
@example(b'{"text": "a", "path": "b.mkv"}')
@FUZZ
def test_any_jsonl_is_read_or_refused(folder: Path, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "fuzz.jsonl").write_bytes(content)
    read_or_refuse(folder, tmp_path / "fuzz.jsonl")


@given(place=st.floats(0, 1, exclude_max=True), value=st.integers(1, 255), cut=st.booleans())
@FUZZ
def test_any_damaged_parquet_is_read_or_refused(
    folder: Path, tmp_path: Path, place: float, value: int, cut: bool
) -> None:
    path = tmp_path / "fuzz.parquet"
    content = bytearray(write(tmp_path / "whole.parquet", ROWS).read_bytes())
    position = int(place * len(content))
    content[position] ^= value
    path.write_bytes(content[:position] if cut else content)
    read_or_refuse(folder, path)


@given(st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=3))
@FUZZ
def test_any_table_is_read_or_refused(folder: Path, tmp_path: Path, rows: list[tuple[str, str]]) -> None:
    read_or_refuse(folder, write(tmp_path / "fuzz.parquet", rows))
    read_or_refuse(folder, write(tmp_path / "fuzz.csv", rows))
