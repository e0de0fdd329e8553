from __future__ import annotations

from pathlib import Path

import pytest

from vdmini.files import is_file_name, replacing


def test_a_file_is_replaced_at_the_end_in_one_step(tmp_path: Path) -> None:
    path = tmp_path / "new" / "clip.mkv"
    for text in ("one", "two"):
        before = path.read_text() if path.exists() else None
        with replacing(path) as partial:
            # What chooses a format by the suffix chooses the same one.
            assert partial.suffix == ".mkv"
            assert partial.parent == path.parent
            assert partial.name.startswith(".")
            partial.write_text(text)
            assert (path.read_text() if path.exists() else None) == before
        assert path.read_text() == text
    assert list(path.parent.iterdir()) == [path]


def test_what_is_broken_off_leaves_the_old_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "clip.mkv"
    path.write_text("old")

    def write(error: type[BaseException]) -> None:
        with replacing(path) as partial:
            partial.write_text("half of the n")
            raise error

    for error in (OSError, KeyboardInterrupt):
        with pytest.raises(error):
            write(error)
        assert path.read_text() == "old"
        assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("stem", ["x" * 251, "\N{LATIN SMALL LETTER U WITH DIAERESIS}" * 125, "\N{CLAPPER BOARD}" * 62])
def test_a_name_that_just_fits_can_be_written(stem: str, tmp_path: Path) -> None:
    path = tmp_path / f"{stem}.mkv"
    assert is_file_name(path.name)
    assert not is_file_name(f"xxxx{path.name}")
    with replacing(path) as partial:
        partial.write_text("new")
        assert len(partial.name.encode()) < 130
        # Another one that is written beside it, as long and with the same start.
        with replacing(tmp_path / f"{stem[:-1]}y.mkv") as other:
            assert other != partial
            other.write_text("other")
    assert path.read_text() == "new"
    assert len(list(tmp_path.iterdir())) == 2


def test_names_that_no_file_has() -> None:
    assert not any(map(is_file_name, ["", "a/b", "a\0b", "\ud800"]))
    # A name that is no UTF-8, as Python reads it.
    assert is_file_name("caf\udce9.png")
