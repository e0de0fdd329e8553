from __future__ import annotations

from pathlib import Path

import pytest

from vdmini.files import replacing


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
