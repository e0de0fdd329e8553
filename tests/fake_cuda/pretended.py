"""Modules moved to a card that is not there, and what a card would refuse or wait for."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import torch
from diffusers import DiffusionPipeline
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, unset_fake_temporarily
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

Module = TypeVar("Module", bound=nn.Module)
aten = torch.ops.aten
# What a card computes in one number format at a time, which fakes do not look at; in inference mode it comes whole.
OF_ONE_FORMAT = {
    aten.linear, aten.matmul, aten.conv2d, aten.conv3d, aten.layer_norm, aten.scaled_dot_product_attention,
    aten.mm, aten.addmm, aten.bmm, aten.baddbmm, aten.convolution, aten.native_layer_norm, aten.native_group_norm,
    aten._scaled_dot_product_flash_attention, aten._scaled_dot_product_efficient_attention,
    aten._scaled_dot_product_cudnn_attention, aten._scaled_dot_product_attention_math,
}  # fmt: skip

ASKED = (aten._local_scalar_dense.default, aten.item.default, aten.is_nonzero.default)


def pretended(value: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """A fake CUDA tensor of a tensor's shape and strides, and of its number format or, of floats, another."""
    chosen = dtype if dtype is not None and value.is_floating_point() else value.dtype
    return torch.empty_strided(value.shape, value.stride(), dtype=chosen, device="cuda")


def on_card(module: Module, dtype: torch.dtype | None = None) -> Module:
    """A copy of a module whose weights and buffers are fake CUDA tensors."""
    with unset_fake_temporarily():
        module = copy.deepcopy(module)
    return convert(module, lambda value: pretended(value, dtype))


def convert(module: Module, change: Callable[[Tensor], Tensor], recurse: bool = True) -> Module:
    """`nn.Module._apply` with new parameters: torch's own swaps a fake one's contents, which it refuses."""
    for part in module.modules() if recurse else [module]:
        for name, weight in part._parameters.items():
            if weight is not None:
                part._parameters[name] = nn.Parameter(change(weight.data), weight.requires_grad)
        for name, buffer in part._buffers.items():
            part._buffers[name] = buffer if buffer is None else change(buffer)
    return module


def pipeline_on_card(pipeline: DiffusionPipeline) -> DiffusionPipeline:
    """The pipeline with all its networks on the card."""
    for name, part in pipeline.components.items():
        if isinstance(part, nn.Module):
            setattr(pipeline, name, on_card(part))
    return pipeline


def moved(values: Any, dtype: torch.dtype | None = None) -> Any:
    """Tensors in any nesting as fake CUDA tensors."""
    return tree_map(lambda value: pretended(value, dtype) if isinstance(value, Tensor) else value, values)


class Card(TorchDispatchMode):
    """Refuses what a card would, and counts the copies to the CPU in `waits`: for each, a card's queue runs empty.

    Where values are asked for, which fakes have none of, a mask hides nothing and a number is 1.
    """

    def __init__(self) -> None:
        super().__init__()
        self.waits = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None) -> Any:
        tensors = [value for value in tree_leaves(args) if isinstance(value, Tensor)]
        from_card = any(value.is_cuda for value in tensors)
        formats = {value.dtype for value in tensors if value.is_floating_point()}
        if func.overloadpacket in OF_ONE_FORMAT and len(formats) > 1:
            raise TypeError(f"{func} takes one number format, not {formats}")
        if func.overloadpacket is aten.to and not isinstance(args[0], FakeTensor) and _to_card(args, kwargs or {}):
            # What has values would be moved in truth.
            args = (torch.empty_like(args[0]), *args[1:])
        if func in ASKED:
            self.waits += from_card
            return args[0].dtype is torch.bool or func is aten.is_nonzero.default or 1
        if func is aten.grid_sampler.default:
            # The kernel that cards have of their own has no fake.
            return aten.grid_sampler_2d(*args)
        if func is aten.nonzero.default:
            self.waits += from_card
            return torch.zeros(args[0].numel(), args[0].ndim, dtype=torch.int64, device=args[0].device)
        if func is aten.index.Tensor:
            self.waits += from_card * sum(_is_mask(index) for index in args[1])
            args = (args[0], [_places(index) if _is_mask(index) else index for index in args[1]])
        found = func(*args, **(kwargs or {}))
        self.waits += from_card and isinstance(found, Tensor) and not found.is_cuda
        return found


def _to_card(args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    return any(isinstance(each, torch.device) and each.type == "cuda" for each in (*args, *kwargs.values()))


def _is_mask(index: Tensor | None) -> bool:
    return index is not None and index.dtype is torch.bool


def _places(mask: Tensor) -> Tensor:
    assert mask.ndim == 1
    return torch.arange(len(mask), device=mask.device)
