"""A result names the commit of this code: never that of a checkout it only happens to be installed in."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from vdmini_bench.system import fingerprint


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
    return subprocess.run(
        ["git", *identity, *arguments], cwd=folder, capture_output=True, text=True, check=True
    ).stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with one commit, and this module standing in it as a file that the commit lacks."""
    git(tmp_path, "init", "-q")
    (tmp_path / "notes.txt").write_text("theirs\n")
    git(tmp_path, "add", "notes.txt")
    git(tmp_path, "commit", "-qm", "theirs")
    module = tmp_path / "package" / "fingerprint.py"
    module.parent.mkdir()
    module.write_text("# installed here\n")
    monkeypatch.setattr(fingerprint, "__file__", str(module))
    return tmp_path


def test_an_enclosing_checkout_is_not_ours(checkout: Path) -> None:
    (checkout / "notes.txt").write_text("changed\n")
    found = fingerprint.take_fingerprint()
    assert (found.commit, found.dirty) == ("unknown", False)


def test_our_checkout_gives_its_commit_and_whether_code_changed(checkout: Path) -> None:
    git(checkout, "add", "package")
    git(checkout, "commit", "-qm", "ours")
    found = fingerprint.take_fingerprint()
    assert found.commit == git(checkout, "rev-parse", "--short=12", "HEAD")
    assert not found.dirty
    (checkout / "package" / "fingerprint.py").write_text("# changed\n")
    assert fingerprint.take_fingerprint().dirty


def test_machine_id_is_the_hardware_alone(checkout: Path) -> None:
    first, second = fingerprint.take_fingerprint(), fingerprint.take_fingerprint()
    assert first.machine_id == second.machine_id
    assert len(first.machine_id) == 12
    assert first.versions["torch"] != "missing"
    assert first.cores >= 1
