"""The first half of any video transformer as an encoder: a view that shares its weights and hooks none of its modules.

With gradient checkpointing in the denoiser, the encoder checkpoints as well.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from vdmini.models.transformer import TransformerFamily

MAPS = 4


def encoder_channels(denoiser: nn.Module, family: TransformerFamily) -> tuple[int, ...]:
    """The channels of each of `encoder_features`' maps: the width of the denoiser, at most four times."""
    config: Any = denoiser.config
    width = config.num_attention_heads * config.attention_head_dim
    return (width,) * len(_tapped(encoder_view(denoiser, family), family))


def encoder_features(
    denoiser: nn.Module, family: TransformerFamily, inputs: Mapping[str, Tensor], grid: tuple[int, int, int]
) -> list[Tensor]:
    """What at most four evenly spaced blocks of the first half make of the video tokens: maps (B T) C H W.

    `grid` is T x H x W in patches, whose tokens run in this order. No block of the second half runs; the output layers
    do, on what the first half made, and nobody reads their result: they are less than a ten-thousandth of the work.
    """
    view = encoder_view(denoiser, family)
    recorded: dict[int, Tensor] = {}
    blocks = _tapped(view, family)
    handles = [_record(block, position, recorded) for position, block in enumerate(blocks)]
    try:
        view(**inputs)
    finally:
        # Gradient checkpointing keeps the blocks until the backward pass, and runs them again there.
        for handle in handles:
            handle.remove()
    return [_as_maps(recorded[position], grid) for position in range(len(blocks))]


def encoder_view(denoiser: nn.Module, family: TransformerFamily) -> nn.Module:
    """The denoiser with only the first half of its blocks, in the order they run, over all stacks; at least one.

    It shares every weight and buffer of what it holds. Hooks on the denoiser and on its blocks themselves stay there,
    so who listens to the denoiser does not hear this view.
    """
    total = sum(len(getattr(denoiser, stack.attribute)) for stack in family.stacks)
    left = max(1, total // 2)
    view = _sharing(denoiser)
    # Whatever wraps this denoiser's own forward would run the whole of it.
    vars(view).pop("forward", None)
    for stack in family.stacks:
        held = [*getattr(denoiser, stack.attribute)][:left]
        setattr(view, stack.attribute, nn.ModuleList(_sharing(block) for block in held))
        left -= len(held)
    return view


def _sharing(module: nn.Module) -> nn.Module:
    """A module of the same submodules, weights and buffers, whose list of submodules and whose hooks are its own."""
    shared = copy.copy(module)
    fresh = vars(nn.Module())
    vars(shared).update({name: value for name, value in fresh.items() if "hooks" in name})
    shared._modules = {**module._modules}
    return shared


def _tapped(view: nn.Module, family: TransformerFamily) -> list[nn.Module]:
    blocks = [block for stack in family.stacks for block in getattr(view, stack.attribute)]
    wanted = min(MAPS, len(blocks))
    return [blocks[len(blocks) * count // wanted - 1] for count in range(1, wanted + 1)]


def _record(block: nn.Module, position: int, recorded: dict[int, Tensor]) -> RemovableHandle:
    def record(module: nn.Module, inputs: tuple[object, ...], output: Any) -> None:
        # Blocks with a stream of text return it after that of the video.
        recorded[position] = output[0] if isinstance(output, tuple) else output

    return block.register_forward_hook(record)


def _as_maps(tokens: Tensor, grid: tuple[int, int, int]) -> Tensor:
    return tokens.unflatten(1, grid).permute(0, 1, 4, 2, 3).flatten(0, 1)
