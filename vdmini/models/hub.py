"""Models on the Hugging Face hub: found in its local cache, and fetched into that only where this is asked for."""

from __future__ import annotations

import json
import re
from contextlib import suppress
from pathlib import Path, PurePosixPath

from vdmini.errors import ModelLoadError
from vdmini.models.folders import is_part, weights_entry
from vdmini.models.registry import EMBEDDED

CONFIGURATIONS = (".json", ".txt", ".model", ".jinja")
ROOTS = ("model_index.json", "config.json")


def source_folder(source: str | Path, *, download: bool = False, weights: bool = True) -> Path:
    """The local folder of an embedded name, a folder, or a hub id, which is in the local hub cache or fetched into it.

    Without `download` nothing is asked of the network; `weights=False` fetches configurations alone. Raises
    ModelLoadError.
    """
    name = str(source)
    folder = EMBEDDED.get(name, Path(name))
    if folder.is_dir():
        return folder
    if name in EMBEDDED:
        raise ModelLoadError(
            f"{name!r} is not part of this installation ({folder} is missing): install a build that has it"
        )
    # Any other name is a path of this machine.
    if not is_hub_id(name):
        raise ModelLoadError(
            f"{name!r} is no folder that exists, and no hub id, OWNER/NAME: check the path; embedded models are"
            f" {', '.join(EMBEDDED)}"
        )
    if download:
        return _fetch(name, weights)
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    with suppress(HFValidationError):
        for root in ROOTS:
            found = try_to_load_from_cache(name, root)
            if isinstance(found, str):
                return Path(found).parent
    raise ModelLoadError(
        f"{name!r} is neither a folder nor in the local hub cache, and nothing is fetched unasked: add --download to"
        " the command (in Python download=True), or check the path"
    )


def is_hub_id(name: str) -> bool:
    """Whether a name can be a model's on the hub: of the form OWNER/NAME, and neither embedded nor a folder here."""
    formed = re.fullmatch(r"[\w.-]+/[\w.-]+", name, re.ASCII) and not name.startswith(".")
    return bool(formed) and name not in EMBEDDED and not Path(name).is_dir()


def source_name(source: str | Path) -> str:
    """What others call a source: the embedded name or the hub id whose folder it is, else as it is."""
    folder = Path(source)
    embedded = (name for name, place in EMBEDDED.items() if place == folder)
    cached = (part[8:].replace("--", "/") for part in folder.parts if part.startswith("models--"))
    return next(embedded, None) or next(cached, str(source))


def _fetch(name: str, weights: bool) -> Path:
    from huggingface_hub import HfApi, hf_hub_download, snapshot_download

    try:
        names = HfApi().list_repo_files(name)
        parts = [""]
        if ROOTS[0] in names:
            described = json.loads(Path(hf_hub_download(name, ROOTS[0])).read_text(encoding="utf-8"))
            parts += [part for part, classes in described.items() if isinstance(classes, list)]
        elif ROOTS[1] not in names:
            raise ModelLoadError(f"{name!r} holds no {' and no '.join(ROOTS)}: give a model in diffusers' layout")
        return Path(snapshot_download(name, allow_patterns=wanted_files(names, parts, weights)))
    except ModelLoadError:
        raise
    except Exception as error:  # network, licence, disk: the hub's client raises unrelated types
        raise ModelLoadError(
            f"cannot fetch {name!r} ({type(error).__name__}: {error}): check its name and the connection, and for a"
            " model with a licence to accept, that you did and ran `hf auth login`"
        ) from error


def wanted_files(names: list[str], parts: list[str], weights: bool) -> list[str]:
    """The files of a repository that loading reads: in the folders `parts`, configurations and one set of weights."""
    wanted = []
    for part in parts:
        inside = {path.name: name for name in names if str((path := PurePosixPath(name)).parent) == (part or ".")}
        wanted += [name for file, name in inside.items() if file.endswith(CONFIGURATIONS)]
        # A pipeline's own folder may hold a whole model in one file, which is not read.
        entry = weights_entry(inside, part) if weights and (part or len(parts) == 1) else None
        if entry is not None:
            wanted += [name for file, name in inside.items() if file == entry.name or is_part(file, entry)]
    return wanted
