from __future__ import annotations

import errno
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vdmini_bench.errors import BenchError
from vdmini_bench.results.store import DONE, Store, _content
from vdmini_bench.system.files import check_can_write, key_of, write_atomically

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


def finished(store: Store) -> Path:
    folder = store.start("sample", "k")
    (folder / "clips").mkdir()
    (folder / "clips" / "a.bin").write_bytes(b"12345")
    (folder / "b.txt").write_text("b")
    store.finish("sample", "k", 1.23456)
    return folder


@given(st.dictionaries(st.text(max_size=3), JSON, min_size=2, max_size=5))
def test_the_key_ignores_the_order_of_keys(value: dict[str, object]) -> None:
    backwards = dict(reversed(value.items()))
    assert key_of(backwards) == key_of(value)
    assert key_of({"inner": [backwards]}) == key_of({"inner": [value]})
    assert key_of({**value, "one more": 1}) != key_of(value)
    assert len(bytes.fromhex(key_of(value))) == 8


def test_a_finished_job_is_done_with_its_time(store: Store) -> None:
    assert not store.is_done("sample", "k")
    finished(store)
    assert store.is_done("sample", "k")
    assert not store.is_done("sample", "other")
    assert not store.is_done("measure", "k")
    assert json.loads((store.work_folder("sample", "k") / DONE).read_text())["seconds"] == pytest.approx(1.235)


@pytest.mark.parametrize("damage", ["missing", "truncated", "grown", "changed", "changed and dated back"])
def test_a_job_with_a_damaged_file_is_not_done(store: Store, damage: str) -> None:
    victim = finished(store) / "clips" / "a.bin"
    if damage == "missing":
        victim.unlink()
    else:
        before = victim.stat()
        victim.write_bytes({"truncated": b"1234", "grown": b"123456"}.get(damage, b"12344"))
        if damage.endswith("back"):
            os.utime(victim, ns=(before.st_atime_ns, before.st_mtime_ns))
    # As a later process finds it.
    _content.cache_clear()
    assert not store.is_done("sample", "k")


def test_files_that_did_not_change_are_read_once_a_process(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    finished(store)
    _content.cache_clear()
    read: list[Path] = []
    opened = Path.open

    def note(self: Path, *arguments: Any, **named: Any) -> Any:
        read.append(self)
        return opened(self, *arguments, **named)

    monkeypatch.setattr(Path, "open", note)
    for _ in range(3):
        assert store.is_done("sample", "k")
    assert sorted(path.name for path in read if path.name != DONE) == ["a.bin", "b.txt"]


def test_places_that_cannot_be_written_are_told_before_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_can_write(tmp_path / "not" / "yet" / "plan.json")
    check_can_write(tmp_path)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("")
    check_can_write(tmp_path / "file")
    for path in (tmp_path / "file" / "clips", Path("/proc/clips"), Path("/dev/null/clips")):
        with pytest.raises(BenchError, match=f"{path} cannot be written .*; choose another place with -o"):
            check_can_write(path)

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    with pytest.raises(BenchError, match="No space left"):
        check_can_write(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "3", "{}", '{"files": []}', '{"files": {"none": 1}}', "\x00"])
def test_a_damaged_marker_is_no_marker(store: Store, text: str) -> None:
    (finished(store) / DONE).write_text(text)
    assert not store.is_done("sample", "k")


def test_the_marker_is_written_last(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = store.start("sample", "k")
    (folder / "a").write_text("a")

    def killed(self: Path, target: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        store.finish("sample", "k", 1)
    assert not store.is_done("sample", "k")
    assert {path.name for path in folder.iterdir()} == {"a"}


def test_an_interrupted_job_keeps_its_work_a_damaged_one_starts_afresh(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = store.start("distill", "k")
    (folder / "checkpoint").write_text("half")
    assert (store.start("distill", "k") / "checkpoint").read_text() == "half"
    store.finish("distill", "k", 1)
    (folder / "checkpoint").write_text("lost")
    assert list(store.start("distill", "k").iterdir()) == []
    assert f"{folder} was damaged after it was finished" in capsys.readouterr().err


def test_an_atomic_write_replaces_the_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b.txt"
    write_atomically(path, "one\ntwo\n")
    write_atomically(path, "é\n")
    assert path.read_bytes() == "é\n".encode()
    # A results folder may be shared.
    assert path.stat().st_mode & 0o777 == 0o644
    assert [item.name for item in path.parent.iterdir()] == ["b.txt"]


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "b.txt"
    write_atomically(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_atomically(path, "new" * 10_000 + "\ud800")

    def full(self: Path, target: Path) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="disk full"):
        write_atomically(path, "new")
    assert path.read_text() == "old"
    assert [item.name for item in tmp_path.iterdir()] == ["b.txt"]


def test_runs_get_folders_of_their_own(store: Store) -> None:
    folders = [store.open_run("ucf101", "abcdef0123") for _ in range(3)]
    assert len(set(folders)) == 3
    assert all("ucf101_abcdef" in folder.name for folder in folders)
    assert store.runs() == []
    for folder in folders[:2]:
        (folder / "run.json").write_text(json.dumps({}))
    assert set(store.runs()) == set(folders[:2])


@pytest.mark.parametrize("suite", ["x" * 250, "\N{CLAPPER BOARD}" * 60, "mine/of today"])
def test_a_run_has_a_folder_whatever_its_suite_is_called(suite: str, store: Store) -> None:
    folder = store.open_run(suite, "abcdef0123")
    (folder / "run.json").write_text("{}")
    assert store.runs() == [folder]
    assert folder.name.endswith("_abcdef")
