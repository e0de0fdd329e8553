"""Files of object stores and hubs, copied once: `s3://`, `gs://`, `hf://` and whatever else fsspec opens."""

from __future__ import annotations

from glob import has_magic
from pathlib import Path
from typing import TYPE_CHECKING

from vdmini.files import replacing
from vdmini.locks import file_lock
from vdmini_bench.assets.cache import cache_folder
from vdmini_bench.errors import SuiteError
from vdmini_bench.system.progress import say

if TYPE_CHECKING:
    import fsspec


def is_remote(address: str) -> bool:
    """Whether an address names files of another place than this machine's disks."""
    return "://" in address


def fetched(address: str) -> list[Path]:
    """Copies of the files that an address names, in a glob's order; one is copied again where its size changed.

    They lie in the cache under their own path. Raises SuiteError where none is there or none can be had.
    """
    # Only where it is needed: programs of one command wait for what modules import.
    import fsspec

    scheme = address.partition("://")[0]
    try:
        store, path = fsspec.url_to_fs(address)
        paths = sorted(store.glob(path)) if has_magic(path) else [path]
        if not paths:
            raise FileNotFoundError(address)
        return [_copy(store, scheme, each) for each in paths]
    except ImportError as error:
        raise SuiteError(f"{address}: {error}") from error
    except (OSError, ValueError) as error:
        raise SuiteError(
            f"{address}: cannot be read ({type(error).__name__}: {error}): correct it or log in"
        ) from error


def _copy(store: fsspec.AbstractFileSystem, scheme: str, path: str) -> Path:
    parts = [part for part in path.split("/") if part not in ("", ".", "..")]
    target = cache_folder().joinpath("remote", scheme, *parts)
    with file_lock(target.with_name(f".{target.name}.lock")):
        size = store.info(path)["size"]
        if not target.is_file() or target.stat().st_size != size:
            say(f"fetch {scheme}://{path}")
            with replacing(target) as partial:
                store.get_file(path, str(partial))
    return target
