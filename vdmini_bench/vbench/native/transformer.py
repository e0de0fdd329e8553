"""The transformer that DINO, CLIP, ViCLIP and MUSIQ share: normalised first, queries, keys and values in one matrix.

Parameters are named as in DINO's file. It is ours because a library's names change from version to version, while the
files are read as they were published, and because DINO's way of stretching its grid is in no library.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vdmini.finite import NotFiniteError, check_weights
from vdmini_bench.errors import MissingAssetsError

# Channels of one head, in all of them.
HEAD = 64
Network = TypeVar("Network", bound=nn.Module)


class QuickGelu(nn.Module):
    """OpenAI's stand-in for GELU."""

    def forward(self, values: Tensor) -> Tensor:
        """Of any shape."""
        # In place: fresh memory for each step takes longer than the arithmetic.
        return (1.702 * values).sigmoid_().mul_(values)


class Linear(nn.Linear):
    """A linear map whose weights stay as its file has them, for CLIP in half precision, and are widened while it maps.

    Exact, since every half is a whole float, and it spares CLIP half of its memory.
    """

    def forward(self, values: Tensor) -> Tensor:
        """B N C to B N C', in the precision of what comes in."""
        return self.part(values, slice(None))

    def part(self, values: Tensor, rows: slice) -> Tensor:
        """The outputs of these rows of the matrix alone."""
        weight, bias = self.weight[rows].to(values.dtype), self.bias[rows].to(values.dtype)
        if values.device.type == "cpu" and torch.backends.mkldnn.is_available():
            # oneDNN by name: `linear` takes MKL, which is a tenth slower on AMD's processors.
            return torch.ops.mkldnn._linear_pointwise(values, weight, bias, "none", [], "")
        return F.linear(values, weight, bias)


class Attention(nn.Module):
    """Attention of tokens B N C among themselves, with `causal` of each to itself and those before."""

    def __init__(self, width: int, *, causal: bool = False) -> None:
        super().__init__()
        self.causal = causal
        self.qkv = Linear(width, 3 * width)
        self.proj = Linear(width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """B N C to B N C."""
        query, key, value = self._split(self.qkv(tokens), 3)
        return self._join(F.scaled_dot_product_attention(query, key, value, is_causal=self.causal))

    def first(self, tokens: Tensor) -> Tensor:
        """B N C to B 1 C: what the first token makes of all."""
        width = tokens.shape[-1]
        (query,) = self._split(self.qkv.part(tokens[:, :1], slice(0, width)), 1)
        key, value = self._split(self.qkv.part(tokens, slice(width, None)), 2)
        return self._join(F.scaled_dot_product_attention(query, key, value))

    def _split(self, mapped: Tensor, parts: int) -> Sequence[Tensor]:
        return mapped.unflatten(-1, (parts, -1, HEAD)).permute(2, 0, 3, 1, 4).unbind()

    def _join(self, mixed: Tensor) -> Tensor:
        return self.proj(mixed.transpose(1, 2).flatten(2))


class Block(nn.Module):
    """One layer of a transformer."""

    def __init__(
        self,
        width: int,
        *,
        inner: int | None = None,
        activation: nn.Module | None = None,
        epsilon: float = 1e-5,
        causal: bool = False,
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=epsilon)
        self.attn = Attention(width, causal=causal)
        self.norm2 = nn.LayerNorm(width, eps=epsilon)
        inner = inner or 4 * width
        maps = OrderedDict(fc1=Linear(width, inner), activation=activation or QuickGelu(), fc2=Linear(inner, width))
        self.mlp = nn.Sequential(maps)

    def forward(self, tokens: Tensor) -> Tensor:
        """B N C to B N C."""
        tokens = tokens + self.attn(self.norm1(tokens))
        return tokens + self.mlp(self.norm2(tokens))

    def first(self, tokens: Tensor) -> Tensor:
        """B N C to B 1 C: the first token alone."""
        token = tokens[:, :1] + self.attn.first(self.norm1(tokens))
        return token + self.mlp(self.norm2(token))


def class_token(blocks: nn.ModuleList, tokens: Tensor) -> Tensor:
    """B N C to B C: the first token after all blocks, the last of which makes no other, since nobody reads them."""
    *earlier, last = blocks
    for block in earlier:
        tokens = block(tokens)
    assert isinstance(last, Block)
    return last.first(tokens)[:, 0]


def rename(state: Mapping[str, Tensor], names: Mapping[str, str]) -> dict[str, Tensor]:
    """The same tensors, every name with parts of it replaced."""
    renamed = {}
    for name, value in state.items():
        for old, new in names.items():
            name = name.replace(old, new)
        renamed[name] = value
    return renamed


def part_of(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names start so, under the rest of their names."""
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def depth_of(state: Mapping[str, Tensor]) -> int:
    """How many blocks a file has."""
    return len({name.split(".")[1] for name in state if name.startswith("blocks.")})


def require_names(state: Mapping[str, Tensor], names: Sequence[str], path: Path, what: str) -> None:
    """Look for what sizes are read from, before they are.

    Raises:
        MissingAssetsError: the file lacks one of these tensors.
    """
    missing = [name for name in names if name not in state]
    if missing:
        raise MissingAssetsError(f"{path} is no {what}: it lacks {missing[0]}; download it again")


def read_checkpoint(path: Path) -> Any:
    """A file of tensors; it may also hold the arguments of a training script, which are data, but no other object.

    Raises:
        MissingAssetsError: it is no such file.
    """
    from argparse import Namespace
    from pickle import UnpicklingError

    try:
        with torch.serialization.safe_globals([Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, UnpicklingError) as error:
        reason = str(error).strip().splitlines()[0]
        raise MissingAssetsError(f"{path} cannot be read as weights ({reason}): download it again") from error


def filled(make: Callable[[], Network], state: Mapping[str, Tensor], path: Path) -> Network:
    """A network, made on the meta device, with a file's tensors, ready to be used in single precision.

    Raises:
        MissingAssetsError: the file is of another network.
        NotFiniteError: a weight is not finite: a threshold or a cut to whole numbers would hide that.
    """
    with torch.device("meta"):
        network = make()
    try:
        # In the place of its own: weights of gigabytes are neither drawn at random first nor there twice.
        network.load_state_dict(state, assign=True)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise MissingAssetsError(f"{path} holds another network than {type(network).__name__}: {reason}") from error
    for module in network.modules():
        own = () if isinstance(module, Linear) else (*module.parameters(recurse=False), *module.buffers(recurse=False))
        for tensor in own:
            if tensor.is_floating_point():
                tensor.data = tensor.data.float()
    network.eval().requires_grad_(False)
    try:
        check_weights(network)
    except NotFiniteError as error:
        raise NotFiniteError(f"{path}: {error}") from error
    return network
