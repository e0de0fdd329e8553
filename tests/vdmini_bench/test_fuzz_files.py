"""Text files and pictures with any bytes: each is read or refused in words, never a traceback and never exit code 1.

Some 330 cases: files that are right, in every encoding and format, with small damages.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from results_of_runs import FVD, row

from vdmini_bench.compare.baseline import read_baseline
from vdmini_bench.config.thresholds import DEFAULT, load_thresholds
from vdmini_bench.data.captioned import ClipFormat, read_captioned
from vdmini_bench.data.picture import read_picture
from vdmini_bench.data.requests import image_requests, prompt_requests
from vdmini_bench.data.ucf101 import LIST_FOLDER, read_split
from vdmini_bench.data.webdataset import read_webdataset
from vdmini_bench.errors import BenchError
from vdmini_bench.results.leaderboard import rows_to_csv
from vdmini_bench.results.records import read_records

FAST = {"deadline": None, "suppress_health_check": [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]}
FORMAT = ClipFormat(2, 7, 32, 32)
ENCODINGS = st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32", "latin-1", "cp1252", "shift_jis"])
ENDS = st.sampled_from(["\n", "\r\n", "\r", "\x85", "\u2028", "\n\n", ";\n", "\x00"])


def edited(content: bytes, edits: list[tuple[float, int, bytes]]) -> bytes:
    for place, removed, inserted in edits:
        start = int(place * len(content))
        content = content[:start] + inserted + content[start + removed :]
    return content


# Where, as a share of the file; how many bytes go; what comes.
EDITS = st.lists(st.tuples(st.floats(0, 1), st.integers(0, 30), st.binary(max_size=6)), max_size=3)


def read_or_refused(read: Callable[[], object]) -> None:
    """Read, or be refused by an error of ours with a message and an exit code that means no regression."""
    try:
        read()
    except BenchError as error:
        refusal = error
    else:
        return
    assert str(refusal).strip()
    assert refusal.exit_code in (2, 3, 4)


def tar_of(path: Path, caption: bytes) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, content in (("a.mp4", b"video"), ("a.txt", caption), ("b.mp4", b"video"), ("b.json", caption)):
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return path


def split_of(folder: Path, content: bytes) -> Path:
    (folder / LIST_FOLDER).mkdir(exist_ok=True)
    for name in ("trainlist01.txt", "testlist01.txt"):
        (folder / LIST_FOLDER / name).write_bytes(content)
    return folder


def run_of(folder: Path, content: bytes) -> Path:
    (folder / "results.jsonl").write_bytes(content)
    (folder / "run.json").write_bytes(b'{"status": "complete", "suite": {"name": "s"}}')
    return folder


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


# A text that is right, and what reads it from a folder.
TEXTS: dict[str, tuple[str, Callable[[Path, bytes], object]]] = {
    "prompts": (
        "a red disc\nein gr\u00fcner Ring\n\u732b\n",
        lambda at, text: prompt_requests(write(at / "p", text), [0]),
    ),
    "captions.csv": (
        'file,caption\na.mkv,"a disc, red"\nb.mkv,"two\nlines"\n',
        lambda at, text: read_captioned(at, write(at / "c.csv", text), FORMAT, skip_unreadable=True),
    ),
    "captions.jsonl": (
        '{"file": "a.mkv", "caption": "x"}\n{"file": "b.mkv", "caption": "y"}\n',
        lambda at, text: read_captioned(at, write(at / "c.jsonl", text), FORMAT, skip_unreadable=True),
    ),
    "shards": (
        '{"caption": "a red disc"}\n',
        lambda at, text: read_webdataset(str(tar_of(at / "s.tar", text)), FORMAT),
    ),
    "splits": (
        "Archery/v_Archery_g01_c01.avi 1\nBowling\\v_Bowling_g09_c02.avi 2\n",
        lambda at, text: read_split(split_of(at, text), "01"),
    ),
    "baseline": (rows_to_csv([row(FVD)]), lambda at, text: read_baseline(write(at / "b.csv", text))),
    "thresholds": (DEFAULT.read_text(encoding="utf-8"), lambda at, text: load_thresholds(write(at / "t.yaml", text))),
    "results": (json.dumps(FVD.to_json()) + "\n", lambda at, text: read_records(run_of(at, text))),
}


@pytest.mark.parametrize("kind", TEXTS)
@given(encoding=ENCODINGS, end=ENDS, edits=EDITS)
@settings(max_examples=20, **FAST)
def test_texts_of_any_bytes(
    tmp_path: Path, kind: str, encoding: str, end: str, edits: list[tuple[float, int, bytes]]
) -> None:
    text, read = TEXTS[kind]
    for name in ("a.mkv", "b.mkv"):
        (tmp_path / name).write_bytes(b"video")
    content = edited(text.replace("\n", end).encode(encoding, errors="replace"), edits)
    read_or_refused(lambda: read(tmp_path, content))


def picture(kind: str) -> bytes:
    rows, columns = np.indices((12, 16))
    colours = np.stack([rows * 20, columns * 15, rows + columns], axis=-1).astype(np.uint8)
    images = {
        "grey 16": Image.fromarray((rows * 5000).astype(np.uint16)),
        "clear": Image.fromarray(np.dstack([colours, (rows * 20).astype(np.uint8)])),
        "inks": Image.fromarray(colours).convert("CMYK"),
        "indexed": Image.fromarray(colours).quantize(8),
    }
    name, _, suffix = kind.rpartition(".")
    exif = Image.Exif()
    exif[0x0112] = 6
    written = io.BytesIO()
    options = {} if suffix == "BMP" else {"exif": exif}
    images.get(name, Image.fromarray(colours)).save(written, suffix, **options)
    return written.getvalue()


PICTURES = ["colours.PNG", "grey 16.PNG", "clear.PNG", "indexed.PNG", "colours.JPEG", "inks.JPEG", "clear.WEBP",
            "colours.BMP", "grey 16.TIFF", "inks.TIFF"]  # fmt: skip


@pytest.mark.parametrize("kind", PICTURES)
@given(edits=EDITS, cut=st.floats(0.5, 1))
@settings(max_examples=17, **FAST)
def test_pictures_of_any_bytes(tmp_path: Path, kind: str, edits: list[tuple[float, int, bytes]], cut: float) -> None:
    whole = picture(kind)
    path = write(tmp_path / "a.png", edited(whole, edits)[: int(cut * len(whole))])
    read_or_refused(lambda: read_picture(path))
    read_or_refused(lambda: image_requests(tmp_path, [0]))
    # What was not damaged is read whatever its name says.
    assert read_picture(write(tmp_path / "whole.tif", whole)).shape[2] == 3
    (tmp_path / "whole.tif").unlink()
