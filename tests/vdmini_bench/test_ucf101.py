from __future__ import annotations

import os
import tempfile
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vdmini_bench.data import ucf101
from vdmini_bench.data.ucf101 import VideoFile, choose_balanced, content_digest, read_split
from vdmini_bench.errors import SuiteError


def video(label: str, number: int, root: Path = Path("none")) -> VideoFile:
    relative = f"{label}/v_{label}_g01_c{number:02d}.avi"
    return VideoFile(label, relative, root / "UCF-101" / relative)


def write_lists(root: Path, train: str, test: str = "B/v_B_g01_c01.avi\n") -> Path:
    lists = root / "ucfTrainTestlist"
    lists.mkdir(parents=True, exist_ok=True)
    (lists / "trainlist01.txt").write_text(train, newline="")
    (lists / "testlist01.txt").write_text(test)
    return root


SIZES = st.dictionaries(st.sampled_from("ABCDE"), st.integers(1, 6), min_size=1)


@given(SIZES, st.integers(0, 9), st.data())
def test_a_choice_is_distinct_balanced_and_a_prefix_of_the_longer(
    sizes: dict[str, int], seed: int, data: st.DataObject
) -> None:
    videos = [video(label, number) for label, size in sizes.items() for number in range(size)]
    count = data.draw(st.integers(1, len(videos)))
    chosen = choose_balanced(videos, count, seed)
    assert len(set(chosen)) == count
    assert set(chosen) <= set(videos)
    per_class = Counter(item.label for item in chosen)
    # As equal as can be: a class with fewer than the largest share has given all it has.
    assert all(per_class[label] in (size, *_largest(per_class)) for label, size in sizes.items())
    assert choose_balanced(list(reversed(videos)), count, seed) == chosen
    assert choose_balanced(videos, len(videos), seed)[:count] == chosen


def _largest(per_class: Counter[str]) -> tuple[int, int]:
    most = max(per_class.values())
    return most, most - 1


def test_the_seed_changes_the_choice() -> None:
    videos = [video(label, number) for label in "AB" for number in range(20)]
    assert choose_balanced(videos, 10, 0) != choose_balanced(videos, 10, 1)


def test_too_few_videos_are_counted() -> None:
    with pytest.raises(SuiteError, match="4 clips asked for where the data set has 3"):
        choose_balanced([video("A", number) for number in range(3)], 4, 0)


def test_lists_are_read_as_ucf101_writes_them(tmp_path: Path) -> None:
    write_lists(tmp_path, "B/v_B_g09_c02.avi 2\r\nA/v_A_g09_c01.avi 1\r\n\r\n  A/v_A_g08_c01.avi\t1\r\n")
    split = read_split(tmp_path, "01")
    assert [item.relative for item in split.train] == ["A/v_A_g08_c01.avi", "A/v_A_g09_c01.avi", "B/v_B_g09_c02.avi"]
    assert [item.label for item in split.train] == ["A", "A", "B"]
    assert split.train[0].path == tmp_path / "UCF-101" / "A" / "v_A_g08_c01.avi"


@pytest.mark.parametrize(
    "line",
    [
        "../../x",
        "../x",
        "./x",
        "/etc/passwd",
        "A/../../x",
        "A/b/c.avi",
        "A\\..\\x",
        "word",
        "A/",
        "A/.",
        "A/..",
    ],
)
def test_a_malformed_entry_is_placed(tmp_path: Path, line: str) -> None:
    write_lists(tmp_path, f"A/v_A_g09_c01.avi 1\n{line} 2\n")
    with pytest.raises(SuiteError, match=r"trainlist01\.txt:2: expected Class/v_Class"):
        read_split(tmp_path, "01")


@pytest.mark.parametrize(
    ("list_line", "on_disk"),
    [
        ("HandstandPushups/v_HandStandPushups_g01_c01.avi", "HandstandPushups/v_HandstandPushups_g01_c01.avi"),
        ("HandstandPushups/v_HandStandPushups_g01_c01.avi", "HandStandPushups/v_HandStandPushups_g01_c01.avi"),
        ("HandstandPushups\\v_HandStandPushups_g01_c01.avi", "HandstandPushups/v_HandStandPushups_g01_c01.avi"),
        ("A/v_A_g01_c01.avi", "A/v_A_g01_c01.AVI"),
        ("A\\v_A_g01_c01.avi", "a/V_a_G01_c01.avi"),
    ],
)
@pytest.mark.parametrize(("mark", "end"), [("", "\n"), ("\ufeff", "\r\n")])
def test_copies_of_the_data_set_that_are_spelt_otherwise_are_read(
    tmp_path: Path, list_line: str, on_disk: str, mark: str, end: str
) -> None:
    path = tmp_path / "UCF-101" / on_disk
    path.parent.mkdir(parents=True)
    path.touch()
    write_lists(tmp_path, f"{mark}{list_line} 1{end}B/v_B_g02_c01.avi 2{end}")
    first, second = sorted(read_split(tmp_path, "01").train, key=lambda item: item.path != path)
    # Known by the name that the list has, whatever the disk calls it: the choice of clips is the same.
    assert (first.relative, first.path) == (list_line.replace("\\", "/"), path)
    assert first.label == list_line.replace("\\", "/").partition("/")[0]
    assert second.path == tmp_path / "UCF-101" / "B" / "v_B_g02_c01.avi"
    # Where both are there, each entry means its own.
    exact = tmp_path / "UCF-101" / first.relative
    exact.parent.mkdir(exist_ok=True)
    exact.touch()
    assert exact in [item.path for item in read_split(tmp_path, "01").train]


@given(st.text(max_size=20))
def test_no_entry_leads_out_of_its_class(line: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder).resolve()
        lists = root / "ucfTrainTestlist"
        lists.mkdir()
        for name in ("trainlist01.txt", "testlist01.txt"):
            (lists / name).write_text(line, encoding="utf-8", newline="")
        try:
            split = read_split(root, "01")
        except SuiteError:
            return
    for item in split.train:
        assert Path(os.path.normpath(item.path)).parent.parent == root / "UCF-101"


def test_missing_and_empty_lists_are_named(tmp_path: Path) -> None:
    with pytest.raises(SuiteError, match=r"trainlist01\.txt: no such split list"):
        read_split(tmp_path, "01")
    write_lists(tmp_path, "\n")
    with pytest.raises(SuiteError, match=r"trainlist01\.txt:1: the list is empty"):
        read_split(tmp_path, "01")
    with pytest.raises(SuiteError, match=r"trainlist02\.txt"):
        read_split(tmp_path, "02")


@pytest.fixture
def videos(tmp_path: Path) -> list[VideoFile]:
    found = [video("A", number, tmp_path) for number in range(3)]
    for number, item in enumerate(found):
        item.path.parent.mkdir(parents=True, exist_ok=True)
        item.path.write_bytes(b"clip%d" % number)
    return found


def test_the_digest_is_of_names_and_bytes(tmp_path: Path, videos: list[VideoFile]) -> None:
    index = tmp_path / "index.json"
    digest = content_digest(videos, index)
    assert content_digest(videos, index) == digest
    assert content_digest(videos, tmp_path / "other.json") == digest
    # Touched or copied elsewhere, the clips are what they were.
    os.utime(videos[0].path, ns=(1, 1))
    assert content_digest(videos, index) == digest
    assert content_digest(videos[:2], tmp_path / "fewer.json") != digest


@pytest.mark.parametrize("change", ["byte", "length", "missing"])
def test_the_digest_changes_with_a_file(tmp_path: Path, videos: list[VideoFile], change: str) -> None:
    index, path = tmp_path / "index.json", videos[1].path
    digest, content = content_digest(videos, index), path.read_bytes()
    if change == "missing":
        path.unlink()
    else:
        path.write_bytes(b"clip9" if change == "byte" else b"clip10")
        os.utime(path, ns=(2, 2))
    assert content_digest(videos, index) != digest
    path.write_bytes(content)
    os.utime(path, ns=(3, 3))
    assert content_digest(videos, index) == digest


def test_an_unchanged_file_is_not_read_again(
    tmp_path: Path, videos: list[VideoFile], monkeypatch: pytest.MonkeyPatch
) -> None:
    index = tmp_path / "index.json"
    digest = content_digest(videos, index)
    read: list[Path] = []
    monkeypatch.setattr(ucf101, "sha256_of", lambda path: read.append(path) or "of what is there")
    assert content_digest(videos, index) == digest
    assert not read
    index.write_text("damaged")
    assert content_digest(videos, index) != digest
    assert len(read) == len(videos)


def test_a_file_of_the_same_size_and_time_is_another_one(tmp_path: Path, videos: list[VideoFile]) -> None:
    index, before = tmp_path / "index.json", videos[0].path.stat()
    digest = content_digest(videos, index)
    videos[0].path.write_bytes(b"other")
    os.utime(videos[0].path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert videos[0].path.stat().st_size == before.st_size
    assert content_digest(videos, index) != digest
