"""Fixtures for the tests that score videos."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from small_scoring import SmallI3d, fill


@pytest.fixture
def small_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The small network stands for I3D, there is none for frame FID, and the cache is the test's own."""
    put_small_network(monkeypatch, tmp_path)


def put_small_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The same for a fixture of a module."""
    for asking in ("metrics.features", "studies.importance"):
        monkeypatch.setattr(f"vdmini_bench.{asking}.load_i3d", lambda asset="": SmallI3d())
    for asking in ("folder", "distributions"):
        monkeypatch.setattr(f"vdmini_bench.suites.{asking}.fetch_asset", lambda name: None)
        monkeypatch.setattr(f"vdmini_bench.suites.{asking}.networks_digest", lambda protocol: "small")
    monkeypatch.setitem(sys.modules, "pytorch_fid", None)
    monkeypatch.setenv("VDMINI_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    """A folder of six drawn clips."""
    return fill(tmp_path / "videos")
