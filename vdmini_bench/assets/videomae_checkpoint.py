"""Read the published VideoMAE checkpoint, checked by name and shape."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from vdmini_bench.assets.catalogue import ASSETS
from vdmini_bench.errors import AssetError

VIDEOMAE = "videomae-ssv2"
# Something-Something v2; the fine-tunings on other data sets differ from it in their heads alone.
CLASSES = 174
PATCH, TUBELET = 14, 2


@dataclass(frozen=True)
class Size:
    """Sizes of a vision transformer: channels of a token and within an MLP, blocks, and heads of attention."""

    width: int
    hidden: int
    depth: int
    heads: int


GIANT = Size(width=1408, hidden=6144, depth=40, heads=16)


def read_original_weights(path: Path) -> dict[str, Tensor]:
    """Read the published checkpoint, or a safetensors file of the same tensors, by the original's names and as stored.

    Raises:
        AssetError: the file needs more than tensors to be read, is damaged, or holds another network's weights.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        if _is_safetensors(path):
            found: object = load_file(path)
        else:
            found = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path) or None)
    except (pickle.UnpicklingError, SafetensorError, RuntimeError, ValueError, EOFError, KeyError, OSError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        said = f"{path} cannot be read as weights and nothing else ({reason})"
        raise AssetError(VIDEOMAE, said, ASSETS[VIDEOMAE].command) from error
    state = _unwrapped(found)
    problem = _difference(state, original_shapes(GIANT))
    if problem is not None:
        raise AssetError(VIDEOMAE, f"{path} is another network: {problem}", ASSETS[VIDEOMAE].command)
    # Each in memory of its own: a checkpoint may hold slices of one buffer, which safetensors does not write.
    return {name: value.clone(memory_format=torch.contiguous_format) for name, value in state.items()}


def original_shapes(size: Size) -> dict[str, tuple[int, ...]]:
    """The tensors of the published checkpoint."""
    width, hidden = size.width, size.hidden
    shapes: dict[str, tuple[int, ...]] = {
        "patch_embed.proj.weight": (width, 3, TUBELET, PATCH, PATCH),
        "patch_embed.proj.bias": (width,),
        "fc_norm.weight": (width,),
        "fc_norm.bias": (width,),
        "head.weight": (CLASSES, width),
        "head.bias": (CLASSES,),
    }
    block: dict[str, tuple[int, ...]] = {
        "norm1.weight": (width,),
        "norm1.bias": (width,),
        "attn.q_bias": (width,),
        "attn.v_bias": (width,),
        "attn.qkv.weight": (3 * width, width),
        "attn.proj.weight": (width, width),
        "attn.proj.bias": (width,),
        "norm2.weight": (width,),
        "norm2.bias": (width,),
        "mlp.fc1.weight": (hidden, width),
        "mlp.fc1.bias": (hidden,),
        "mlp.fc2.weight": (width, hidden),
        "mlp.fc2.bias": (width,),
    }
    return shapes | {f"blocks.{n}.{name}": shape for n in range(size.depth) for name, shape in block.items()}


def _is_safetensors(path: Path) -> bool:
    """Whether a JSON header follows a length of 8 bytes: neither a zip archive nor a pickle has a brace there."""
    with path.open("rb") as file:
        return file.read(9)[8:] == b"{"


def _unwrapped(found: object) -> dict[str, Tensor]:
    for key in ("model", "module"):
        if isinstance(found, dict) and key in found:
            found = found[key]
            break
    return {str(k): v for k, v in found.items() if isinstance(v, Tensor)} if isinstance(found, dict) else {}


def _difference(state: Mapping[str, Tensor], expected: Mapping[str, tuple[int, ...]]) -> str | None:
    """The first way in which a checkpoint is not the published one, or None."""
    for name in (*expected, *state):
        if name not in state:
            return f"it has no {name}"
        if name not in expected:
            return f"it has {name}, which VideoMAE v2 has not"
        if tuple(state[name].shape) != expected[name] or not state[name].is_floating_point():
            found = f"{name} is {state[name].dtype} of shape {tuple(state[name].shape)}"
            return f"{found} where floating point of shape {expected[name]} is wanted"
    return None
