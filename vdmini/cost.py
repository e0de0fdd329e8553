"""What a network costs: its weights, and the FLOPs of one forward pass, counted without running it."""

from __future__ import annotations

import copy
import itertools
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any, Protocol
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map_only
from torch.utils.flop_counter import flop_registry

# How far into what a module holds its settings are looked for: an attention processor's, and those of what it calls.
DEPTH = 2


class Counter(Protocol):
    """Something that is counted while a pass runs."""

    total: int


def count_parameters(module: nn.Module) -> int:
    """Number of weights of a module, shared ones counted once."""
    return sum(parameter.numel() for parameter in module.parameters())


def count_flops(module: nn.Module, inputs: Mapping[str, object]) -> int:
    """FLOPs of `module(**inputs)`, 1 MAC = 2 FLOP: products of matrices, convolutions and attention, nothing else.

    Only shapes are computed, on the meta device, so a model of any size is counted in seconds; `module` is not changed.
    """
    return sum(flops_by_block(module, inputs, lambda whole: {"": (whole,)}).values())


def flops_by_block(
    module: nn.Module,
    inputs: Mapping[str, object],
    block_modules: Callable[[nn.Module], Mapping[str, Sequence[nn.Module]]],
) -> dict[str, int]:
    """FLOPs of `module(**inputs)` by block, where `block_modules(module)` names the submodules that make up each block.

    Counts as `count_flops` does. Raises ValueError when some FLOPs lie outside all blocks.
    """
    counter = FlopCounter()
    flops = count_by_block(module, inputs, block_modules, counter, counter)
    outside = counter.total - sum(flops.values())
    if outside:
        raise ValueError(
            f"{outside} FLOPs of {type(module).__name__} belong to no block: its list of blocks is incomplete"
        )
    return flops


def count_by_block(
    module: nn.Module,
    inputs: Mapping[str, object],
    block_modules: Callable[[nn.Module], Mapping[str, Sequence[nn.Module]]],
    counter: Counter,
    *modes: AbstractContextManager[object],
) -> dict[str, int]:
    """By how much a counter grows inside each block while `module(**inputs)` runs on the meta device under `modes`.

    Of blocks that are alike, in their weights' shapes, their settings and their inputs' shapes, one runs.
    """
    shapes_only = on_meta(module)
    blocks = block_modules(shapes_only)
    counts = dict.fromkeys(blocks, 0)
    known: dict[object, tuple[int, object]] = {}
    for name, submodules in blocks.items():
        for submodule in submodules:
            _count_inside(submodule, name, counter, counts, known)
    meta_inputs = {name: value.to("meta") if isinstance(value, Tensor) else value for name, value in inputs.items()}
    with torch.no_grad(), without_values(), ExitStack() as active:
        for mode in modes:
            active.enter_context(mode)
        shapes_only(**meta_inputs)
    return counts


def on_meta(module: nn.Module) -> nn.Module:
    """A float32 copy with the same topology and no storage: the weights are replaced before they would be copied."""
    replaced: dict[int, object] = {}
    for parameter in module.parameters():
        replaced[id(parameter)] = nn.Parameter(_shape_of(parameter), parameter.requires_grad)
    for buffer in module.buffers():
        replaced[id(buffer)] = _shape_of(buffer)
    return copy.deepcopy(module, replaced)


class FlopCounter(TorchDispatchMode):
    """Sums what torch's own formulas give for each operation; its `FlopCounterMode` also keeps them by module.

    That takes half as long again as the pass. Operations made of others come here as those others, without gradients.
    """

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(
        self, func: Any, types: object, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        formula = flop_registry.get(func.overloadpacket)
        if formula is not None:
            self.total += formula(*args, **(kwargs or {}), out_val=out)
        return out


class AssumedValues(TorchDispatchMode):
    """Answers where a forward pass asks shapes for values: masks are full, lengths the longest, conditions false."""

    def __torch_dispatch__(
        self, func: Any, types: object, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        asked = args[0] if args and is_shape(args[0]) else None
        if asked is not None and func is torch.ops.aten._local_scalar_dense.default:
            return sys.maxsize if asked.dtype in (torch.int32, torch.int64) else False
        if asked is not None and func is torch.ops.aten.bitwise_not.default and is_mask(asked):
            # What a full mask of one text leaves out: no places, where a mask would have to know which.
            return torch.empty(0, dtype=torch.int64, device=asked.device)
        if asked is not None and func is torch.ops.aten.index.Tensor and is_mask(args[1][0]):
            return asked.clone()
        return func(*args, **(kwargs or {}))


def is_mask(index: object) -> bool:
    """Whether an index says of each place if it is meant."""
    return isinstance(index, Tensor) and index.dtype == torch.bool and index.dim() == 1


def is_shape(value: object) -> bool:
    """Whether a tensor has no values."""
    return isinstance(value, FakeTensor) or (isinstance(value, Tensor) and value.is_meta)


def _count_inside(
    submodule: nn.Module, name: str, counter: Counter, counts: dict[str, int], known: dict[object, tuple[int, object]]
) -> None:
    run, kind = submodule.forward, _kind(submodule)

    def counted(*args: Any, **named: Any) -> object:
        given = _shapes_of((args, named))
        key = None if given is None else (kind, given)
        if key in known:
            spent, made = known[key]
            counter.total += spent
            output = tree_map_only(Tensor, torch.empty_like, made)
        else:
            before = counter.total
            output = run(*args, **named)
            spent = counter.total - before
            if key is not None and _shapes_of(output) is not None:
                known[key] = spent, output
        counts[name] += spent
        return output

    submodule.forward = counted


def _kind(module: nn.Module) -> str:
    """What decides a module's operations beside its inputs: classes, settings, and shapes of weights and buffers."""
    parts = [(name, type(part).__qualname__, _settings(vars(part))) for name, part in module.named_modules()]
    tensors = itertools.chain(module.named_parameters(), module.named_buffers())
    return repr((parts, [(name, tuple(tensor.shape), tensor.dtype) for name, tensor in tensors]))


def _settings(value: object, depth: int = 0) -> object:
    """A value as text that is equal for equal ones; of what holds others, as deep as settings go."""
    if isinstance(value, Mapping):
        return [(str(key), _settings(each, depth)) for key, each in value.items() if str(key)[:1] != "_"]
    if isinstance(value, list | tuple | set):
        return [_settings(each, depth) for each in value]
    if isinstance(value, bool | int | float | str | torch.dtype | None):
        return value
    inside = {} if isinstance(value, nn.Module) or depth == DEPTH else getattr(value, "__dict__", {})
    return getattr(value, "__qualname__", type(value).__qualname__), _settings(inside, depth + 1)


def _shapes_of(values: object) -> tuple[object, ...] | None:
    """Shapes of all tensors, and everything else as it is; None where something else is more than a number or text."""
    leaves, structure = tree_flatten(values)
    if not all(isinstance(leaf, Tensor | bool | int | float | str | torch.dtype | None) for leaf in leaves):
        return None
    shapes = ((tuple(leaf.shape), leaf.dtype) if isinstance(leaf, Tensor) else leaf for leaf in leaves)
    return str(structure), *shapes


@contextmanager
def without_values() -> Iterator[None]:
    """Let forward passes run on the meta device that ask it for autocast, or for values, which are `AssumedValues`.

    Autocast changes no shape there.
    """
    from torch.fx.experimental import _config

    shape_settings: Any = _config
    autocast = torch.autocast

    def of_other_devices(device_type: str, *options: Any, **named: Any) -> AbstractContextManager[object]:
        return nullcontext() if device_type == "meta" else autocast(device_type, *options, **named)

    all_nonzero = shape_settings.patch(meta_nonzero_assume_all_nonzero=True)
    with patch.object(torch, "autocast", of_other_devices), all_nonzero, AssumedValues():
        yield


def _shape_of(weight: Tensor) -> Tensor:
    # Inputs are made in float32, and the number of operations does not depend on the format.
    return weight.detach().to("meta", torch.float32 if weight.is_floating_point() else weight.dtype)
