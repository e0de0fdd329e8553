"""Fixtures for the tests of scoring by the official VBench."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_suite import Bench, leave_the_users_folders


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """Five videos of one prompt, and a driver that has all it needs."""
    leave_the_users_folders(tmp_path, monkeypatch)
    made = Bench(tmp_path, ("color",), side=32)
    made.use(monkeypatch)
    return made
