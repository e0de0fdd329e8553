"""The Swin transformer (Liu et al. 2021) that Tag2Text sees with, as a function of its file's tensors."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from vdmini_bench.vbench.native.transformer import depth_of, part_of

State = Mapping[str, Tensor]
# Added to the attention between patches that only the move of windows brought side by side.
APART = -100.0


def linear(state: State, name: str, values: Tensor) -> Tensor:
    """The linear map of a name, with or without a bias."""
    return F.linear(values, state[f"{name}.weight"], state.get(f"{name}.bias"))


def norm(state: State, name: str, values: Tensor, epsilon: float = 1e-5) -> Tensor:
    """The layer norm of a name."""
    return F.layer_norm(values, values.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"], epsilon)


def see(state: State, pixels: Tensor) -> Tensor:
    """B 3 S S normalised pixels to B 1+N C: the mean of all patches, and each."""
    kernel = state["patch_embed.proj.weight"]
    patches = F.conv2d(pixels, kernel, state["patch_embed.proj.bias"], kernel.shape[-1]).permute(0, 2, 3, 1)
    patches = norm(state, "patch_embed.norm", patches)
    for place in range(len({name.split(".")[1] for name in state if name.startswith("layers.")})):
        stage = part_of(state, f"layers.{place}.")
        for layer in range(depth_of(stage)):
            patches = _block(part_of(stage, f"blocks.{layer}."), patches, shifted=layer % 2 == 1)
        if "downsample.reduction.weight" in stage:
            four = [patches[:, down::2, across::2] for across in (0, 1) for down in (0, 1)]
            patches = linear(stage, "downsample.reduction", norm(stage, "downsample.norm", torch.cat(four, -1)))
    seen = norm(state, "norm", patches).flatten(1, 2)
    return torch.cat([seen.mean(1, keepdim=True), seen], dim=1)


def _block(state: State, patches: Tensor, *, shifted: bool) -> Tensor:
    """One layer, B H W C to the same: attention within windows, which are moved by half of one where `shifted`."""
    ways, heads = state["attn.relative_position_bias_table"].shape
    window, (rows, columns) = (math.isqrt(ways) + 1) // 2, patches.shape[1:3]
    # What has no more than one window has nowhere to move it.
    shift = window // 2 if shifted and min(rows, columns) > window else 0
    windows = _windows(norm(state, "norm1", patches).roll((-shift, -shift), (1, 2)), window)
    query, key, value = linear(state, "attn.qkv", windows).unflatten(-1, (3, heads, -1)).permute(3, 0, 1, 4, 2, 5)
    bias = state["attn.relative_position_bias_table"][_ways(window)].permute(2, 0, 1)
    bias = bias + _apart(rows, columns, window, shift)[:, None].to(bias.device)
    mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=bias.expand(len(query), -1, -1, -1, -1))
    cut = linear(state, "attn.proj", mixed.transpose(2, 3).flatten(3)).unflatten(2, (window, window))
    whole = cut.unflatten(1, (rows // window, -1)).transpose(2, 3).flatten(3, 4).flatten(1, 2)
    patches = patches + whole.roll((shift, shift), (1, 2))
    return patches + linear(state, "mlp.fc2", F.gelu(linear(state, "mlp.fc1", norm(state, "norm2", patches))))


def _windows(patches: Tensor, window: int) -> Tensor:
    """B H W C to B N P C, windows row by row and their patches likewise."""
    cut = patches.unflatten(2, (-1, window)).unflatten(1, (-1, window))
    return cut.transpose(2, 3).flatten(3, 4).flatten(1, 2)


def _ways(window: int) -> Tensor:
    """The row of the table of biases for each way from one patch of a window to another."""
    steps = torch.arange(window)
    places = torch.cartesian_prod(steps, steps)
    ways = places[:, None] - places[None] + window - 1
    return ways[..., 0] * (2 * window - 1) + ways[..., 1]


def _apart(rows: int, columns: int, window: int, shift: int) -> Tensor:
    """What is added between the patches of each window, N P P: of a moved frame, the other side of it is apart."""
    steps = [torch.arange(side) for side in (rows, columns)]
    down, across = ((step >= len(step) - window).int() + (step >= len(step) - shift) for step in steps)
    regions = _windows((3 * down[:, None] + across)[None, ..., None], window)[0, ..., 0]
    return torch.where((regions[:, :, None] == regions[:, None]) | (shift == 0), 0.0, APART)
