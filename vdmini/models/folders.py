"""Folders that save_pretrained wrote: which of their files are read, and their networks with nothing left unfilled."""

from __future__ import annotations

import importlib
import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vdmini.errors import ModelLoadError
from vdmini.models.registry import DENOISERS
from vdmini.models.weights import check_file, names_that_do_not_fit

if TYPE_CHECKING:
    import torch
    from torch import nn

# Where a pipeline's networks come from; other libraries' are left to diffusers.
LIBRARIES = ("diffusers", "transformers", "vdmini")
# One file or the index of several, and the variant in its name, which either may have in two places.
_ENTRY = re.compile(
    r"(?:diffusion_pytorch_model|model|pytorch_model)(?:\.(?P<early>[^.]+))?\.(?P<kind>safetensors|bin)"
    r"(?P<index>\.index(?:\.(?P<late>[^.]+))?\.json)?"
)
_SHARD = re.compile(
    r"[^.]+(?:\.(?P<early>[^.]+))?-[0-9]{5}-of-[0-9]{5}(?:\.(?P<late>[^.]+))?\.(?P<kind>safetensors|bin)"
)


@dataclass(frozen=True)
class Entry:
    """The file that a folder's weights are read from, or the index of several; `variant` is None for the plain ones."""

    name: str
    kind: str
    variant: str | None
    is_index: bool


def weights_entry(names: Iterable[str], folder: str | Path) -> Entry | None:
    """What to read of the files of one folder: plain ones before a variant, safetensors before .bin; None if neither.

    Raises ModelLoadError for several variants without plain files, or parts of a file without their index.
    """
    entries, shards = [], []
    for name in sorted(names):
        if _SHARD.fullmatch(name):
            shards.append(name)
        elif match := _ENTRY.fullmatch(name):
            entries.append(Entry(name, match["kind"], match["late"] or match["early"], match["index"] is not None))
    if not entries:
        if shards:
            raise ModelLoadError(f"{folder} lacks the index of {shards[0]}, a .json file: download the folder again")
        return None
    variants = sorted({entry.variant for entry in entries if entry.variant is not None})
    if len(variants) > 1 and all(entry.variant is not None for entry in entries):
        raise ModelLoadError(
            f"{folder} holds the variants {', '.join(variants)} and no plain weights: remove all but one of them"
        )
    return min(entries, key=lambda entry: (entry.variant is not None, entry.kind != "safetensors", entry.is_index))


def is_part(name: str, entry: Entry) -> bool:
    """Whether a file is one of those that an index lists, by its name."""
    match = _SHARD.fullmatch(name) if entry.is_index else None
    return match is not None and (match["kind"], match["late"] or match["early"]) == (entry.kind, entry.variant)


def weights_files(folder: Path) -> tuple[Entry, list[Path]] | None:
    """What a folder's weights are read from and all its files, which are there and no pointers; None without weights.

    Raises ModelLoadError with the name of a file that is missing or is something else.
    """
    entry = weights_entry((path.name for path in folder.iterdir()), folder)
    if entry is None:
        return None
    check_file(folder / entry.name)
    files = [folder / entry.name]
    if entry.is_index:
        names = sorted({*read_json(folder / entry.name).get("weight_map", {}).values()})
        files = [folder / name for name in names]
        missing = [path.name for path in files if not path.is_file()]
        if missing:
            raise ModelLoadError(
                f"{folder} lacks {', '.join(missing)}, which {entry.name} lists: download the folder again, whole"
            )
    for path in files:
        check_file(path)
    return entry, files


def read_json(path: Path) -> dict[str, Any]:
    """The object in a configuration file; raises ModelLoadError where it is none."""
    check_file(path)
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelLoadError(f"{str(path)!r} cannot be read ({error}): download it again") from error
    if not isinstance(value, dict):
        raise ModelLoadError(f"{str(path)!r} is no configuration: it holds no object")
    return value


def check_parts(folder: Path) -> None:
    """Look for all that a pipeline's index names, and into every file of weights as far as its table of contents.

    Raises ModelLoadError for a part that is missing and a file that is missing, cut off or something else.
    """
    for name, described in read_json(folder / "model_index.json").items():
        if name.startswith("_") or not isinstance(described, list) or described[0] is None:
            continue
        _require_part(folder, name)
        if (found := weights_files(folder / name)) is not None:
            files_dtype(found[1])


def _require_part(folder: Path, name: str) -> None:
    if not (folder / name).is_dir():
        raise ModelLoadError(f"{folder} lacks {name}/, which its model_index.json names: download it whole")


def load_networks(folder: Path, dtype: torch.dtype | None) -> dict[str, nn.Module]:
    """The networks of a pipeline's folder by name, on the CPU in `dtype`, or each in that of its own files for None.

    Raises ModelLoadError with the names of weights and files that are missing, unknown or misshapen.
    """
    import torch

    index, networks = read_json(folder / "model_index.json"), {}
    for name, described in index.items():
        place = folder / name
        if not isinstance(described, list) or described[0] not in LIBRARIES:
            continue
        for path in place.glob("*"):
            # Vocabularies of other suffixes may begin as pages do.
            if path.suffix in (".json", ".model"):
                check_file(path)
        native = getattr(importlib.import_module(described[0]), str(described[1]), None)
        if not (isinstance(native, type) and issubclass(native, torch.nn.Module)):
            continue
        _require_part(folder, name)
        networks[name] = load_network(native, place, dtype)
    return networks


def load_network(native: Any, folder: Path, dtype: torch.dtype | None) -> nn.Module:
    """The network of a class in a folder of its own, as `load_networks` loads each."""
    found = weights_files(folder)
    if found is None:
        raise ModelLoadError(f"{folder} holds no weights (.safetensors or .bin): download it again, whole")
    entry, files = found
    try:
        network, report = native.from_pretrained(
            folder,
            variant=entry.variant,
            use_safetensors=entry.kind == "safetensors",
            dtype=dtype or files_dtype(files),
            local_files_only=True,
            output_loading_info=True,
        )
    except Exception as error:  # whatever the files made diffusers, transformers or safetensors raise
        wrong = _misshapen(native, folder, files) or f"{type(error).__name__}: {error}"
        raise ModelLoadError(f"{folder} does not load as {native.__name__}: {wrong}") from error
    _check_report(network, report, folder)
    module: nn.Module = network
    return module


def denoiser_dtype(folder: Path) -> torch.dtype:
    """The number format of the weights of a folder's denoiser, as `files_dtype` says it.

    Raises ModelLoadError where there are none, or not all.
    """
    for part in (*DENOISERS, "."):
        if (folder / part).is_dir() and (found := weights_files(folder / part)) is not None:
            return files_dtype(found[1])
    raise ModelLoadError(f"{folder} holds no weights of a denoiser ({', '.join(DENOISERS)}): download it again, whole")


def files_dtype(files: Iterable[Path]) -> torch.dtype:
    """The floating-point format of most weights in some files: float16 or bfloat16, or float32 for all others."""
    import torch

    counts: Counter[str] = Counter()
    for file in files:
        try:
            weights = _weights_in(file)
        except Exception as error:  # whatever a damaged file makes the readers raise
            raise ModelLoadError(f"{str(file)!r} cannot be read as weights ({error}): download it again") from error
        for kind, shape in weights.values():
            counts[kind] += math.prod(shape) if "F" in kind else 0
    most = counts.most_common(1)[0][0] if counts else ""
    return {"F16": torch.float16, "BF16": torch.bfloat16}.get(most, torch.float32)


def _weights_in(file: Path) -> dict[str, tuple[str, tuple[int, ...]]]:
    """The format, as safetensors calls it, and the shape of each tensor in a file, by name."""
    import torch
    from safetensors import safe_open

    if file.suffix != ".safetensors":
        formats = {torch.float16: "F16", torch.bfloat16: "BF16", torch.float32: "F32"}
        tensors = torch.load(file, "meta", weights_only=True).items()
        return {name: (formats.get(tensor.dtype, ""), tuple(tensor.shape)) for name, tensor in tensors}
    with safe_open(file, framework="pt") as opened:
        slices = {name: opened.get_slice(name) for name in opened.keys()}  # noqa: SIM118 - not a mapping
        return {name: (each.get_dtype(), tuple(each.get_shape())) for name, each in slices.items()}


def _misshapen(native: Any, folder: Path, files: Iterable[Path]) -> str:
    """The weights of files that have other shapes than a class's under their names; "" where that is not the fault."""
    import torch
    from diffusers import ModelMixin

    try:
        with torch.device("meta"):
            if issubclass(native, ModelMixin):
                network = native.from_config(read_json(folder / "config.json"))
            else:
                network = native(native.config_class.from_pretrained(folder, local_files_only=True))
        found = {name: shape for file in files for name, (_, shape) in _weights_in(file).items()}
    except Exception:  # then something else is wrong, which the loader has said
        return ""
    expected = {name: tensor.shape for name, tensor in network.state_dict().items() if name in found}
    return names_that_do_not_fit(expected, {name: found[name] for name in expected})


def _check_report(network: nn.Module, report: Mapping[str, Iterable[Any]], folder: Path) -> None:
    """Refuse a network that its files do not fill, or one of diffusers' that leaves some of them out."""
    import diffusers

    parameters = dict(network.named_parameters(remove_duplicate=False))
    missing = dict.fromkeys(report["missing_keys"], ())
    filled = {id(weight) for name, weight in parameters.items() if name not in missing}
    # One weight under two names is in a file once.
    lacking = {name: () for name in missing if name not in parameters or id(parameters[name]) not in filled}
    # An encoder may come from the file of a whole model.
    unknown = {name: () for name in report["unexpected_keys"] if isinstance(network, diffusers.ModelMixin)}
    if wrong := names_that_do_not_fit(dict(sorted(lacking.items())), dict(sorted(unknown.items()))):
        raise ModelLoadError(
            f"the weights in {folder} do not fit its config.json: {wrong}: download both again, or give the"
            " configuration that the weights were made with"
        )
