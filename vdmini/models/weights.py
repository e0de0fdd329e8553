"""Files of weights: what a file really is, its tensors by name, and the names that do not fit a network."""

from __future__ import annotations

import logging
import re
import zipfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vdmini.errors import ModelLoadError

if TYPE_CHECKING:
    from torch import Tensor

logger = logging.getLogger(__name__)

# How many names of each kind a message lists.
LISTED = 5
# What wrappers and trainers put before the names of the network inside them: torch.compile, DDP, FSDP, and classes
# that hold a network as an attribute.
_WRAPPERS = re.compile(
    r"(?:(?:_orig_mod|module|_fsdp_wrapped_module|_forward_module|model|diffusion_model|net|network|unet|transformer"
    r"|denoiser|generator|student|ema|ema_model|model_ema|state_dict)\.)+"
)
# Whole checkpoints keep the denoiser under this name, beside a VAE and encoders.
_DENOISER = "diffusion_model."


def weights_fault(path: Path) -> str | None:
    """What a file is in place of weights or a configuration, as the end of "FILE is ..."; None where it may be them.

    Looks at its first bytes alone. Raises OSError.
    """
    with path.open("rb") as file:
        head = file.read(512)
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if not head:
        return "empty: its download did not end"
    if text.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer, not the file it stands for: run `git lfs pull` in its folder, or download it again"
    if head.startswith(b"GGUF"):
        return "a GGUF file, whose weights are quantised: give unquantised ones, as safetensors"
    # The length that a safetensors file begins with may hold these bytes too, and zeros.
    if text.startswith(b"<") and b"\0" not in head:
        return "a web page, not the file it should be: the server answered with an error or a login; download it again"
    return None


def check_file(path: Path) -> None:
    """Raise ModelLoadError where a file cannot be read, or is something else than weights or a configuration."""
    try:
        fault = weights_fault(path)
    except OSError as error:
        raise ModelLoadError(f"{str(path)!r} cannot be read ({error}): check the path") from error
    if fault is not None:
        raise ModelLoadError(f"{str(path)!r} is {fault}")


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """The tensors of one file by name, without a prefix that they share: safetensors, or pickled tensors, by content.

    A checkpoint that holds them beside other things gives its one set of weights, or what it keeps under
    `diffusion_model.`. What is left out of names is logged as a warning. No code of the file is run. Raises
    ModelLoadError.
    """
    return without_prefix(_tensors(path, read_content(Path(path))), path)


def without_prefix(weights: Mapping[str, Tensor], path: str | Path) -> dict[str, Tensor]:
    """Weights without the prefix of wrappers that their names share; a warning is logged that says which.

    Raises ModelLoadError where two names become one.
    """
    found = Counter(match.group() for match in map(_WRAPPERS.match, weights) if match)
    prefix, count = found.most_common(1)[0] if found else ("", 0)
    # A few names with a prefix among many without are no wrapper's.
    if 4 * count <= len(weights):
        return dict(weights)
    rest = ""
    if prefix.endswith(_DENOISER):
        left = len(weights) - count
        weights = {name: weight for name, weight in weights.items() if name.startswith(prefix)}
        rest = f"; {left} others, of networks beside it, are not" if left else ""
    stripped = {name.removeprefix(prefix): weight for name, weight in weights.items()}
    if len(stripped) != len(weights):
        raise ModelLoadError(f"{str(path)!r} holds the same names with and without {prefix!r}: keep one set of weights")
    logger.warning("%s: %s weights are read without the prefix %r of their names%s", path, count, prefix, rest)
    return stripped


def names_that_do_not_fit(expected: Mapping[str, Sequence[int]], found: Mapping[str, Sequence[int]]) -> str:
    """The names that a network lacks or does not know, and shapes that differ: counts, a few of each; "" for none."""
    misshapen = [
        f"{name} has {_shape_text(found[name])} for {_shape_text(shape)}"
        for name, shape in expected.items()
        if name in found and [*found[name]] != [*shape]
    ]
    kinds = {
        "missing": [name for name in expected if name not in found],
        "unknown": [name for name in found if name not in expected],
        "of another shape": misshapen,
    }
    return "; ".join(f"{len(names):,} {kind} ({_few(names)})" for kind, names in kinds.items() if names)


def _few(names: Sequence[str]) -> str:
    return ", ".join([*names[:LISTED], *(["..."] if len(names) > LISTED else [])])


def _shape_text(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape)) or "a single number"


def read_content(path: Path) -> Any:
    """What a file of tensors holds, as it was saved; no code of the file is run. Raises ModelLoadError."""
    import torch
    from safetensors.torch import load_file

    check_file(path)
    try:
        archive = zipfile.is_zipfile(path)
        with path.open("rb") as file:
            pickled = archive or file.read(1) == b"\x80"
        return torch.load(path, "cpu", weights_only=True, mmap=archive) if pickled else load_file(path)
    except Exception as error:  # what a damaged file makes the readers raise is of many types
        reason = (str(error).splitlines() or [""])[0]
        raise ModelLoadError(
            f"{str(path)!r} cannot be read as weights ({type(error).__name__}: {reason}): download it again, or give"
            " another file"
        ) from error


def _tensors(path: str | Path, content: Any) -> Mapping[str, Tensor]:
    """The one set of weights in what a file holds: itself, or one of its entries."""
    from torch import Tensor

    entries = content if isinstance(content, Mapping) else {}
    sets = {
        str(name): entry
        for name, entry in entries.items()
        if isinstance(entry, Mapping) and entry and all(isinstance(value, Tensor) for value in entry.values())
    }
    own = {str(name): entry for name, entry in entries.items() if isinstance(entry, Tensor)}
    if len(sets) > 1:
        raise ModelLoadError(
            f"{str(path)!r} holds several sets of weights ({', '.join(sets)}): save the one you mean to a file alone"
        )
    found = next(iter(sets.values())) if sets else own
    if not found:
        raise ModelLoadError(f"{str(path)!r} holds no weights: give a file of tensors by name, such as a state dict")
    return {str(name): tensor for name, tensor in found.items()}
