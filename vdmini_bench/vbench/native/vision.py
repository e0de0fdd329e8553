"""The vision transformer of DINO (Caron et al. 2021), of CLIP and of DreamSim, in the sizes of a file's tensors."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vdmini_bench.vbench.native.transformer import Block, class_token, depth_of


class VisionTransformer(nn.Module):
    """B 3 H W normalised pixels to B x D features, those of the class token.

    Named as in DINO's file, which has no norm before its blocks and no projection after them. What is left over of a
    frame at the right and below, less than a patch, is cut off.
    """

    def __init__(self, state: Mapping[str, Tensor], activation: nn.Module, epsilon: float) -> None:
        super().__init__()
        width, _, patch, _ = state["patch_embed.proj.weight"].shape
        convolution = nn.Conv2d(3, width, patch, patch, bias="patch_embed.proj.bias" in state)
        self.patch_embed = nn.ModuleDict({"proj": convolution})
        self.cls_token = nn.Parameter(torch.zeros(state["cls_token"].shape))
        self.pos_embed = nn.Parameter(torch.zeros(state["pos_embed"].shape))
        self.pos_drop = nn.LayerNorm(width, epsilon) if "pos_drop.weight" in state else nn.Identity()
        blocks = (Block(width, activation=activation, epsilon=epsilon) for _ in range(depth_of(state)))
        self.blocks = nn.ModuleList(blocks)
        self.norm = nn.LayerNorm(width, epsilon) if "norm.weight" in state else nn.Identity()
        self.proj = nn.Parameter(torch.zeros(state["proj"].shape)) if "proj" in state else None

    def forward(self, pixels: Tensor) -> Tensor:
        """Embed a batch."""
        features = self.norm(class_token(self.blocks, self.pos_drop(self.tokens(pixels))))
        return features if self.proj is None else features @ self.proj

    def tokens(self, pixels: Tensor) -> Tensor:
        """The class token and those of patches, with their places: B N C."""
        patches = self.patch_embed["proj"](pixels)
        first = self.cls_token.expand(len(pixels), 1, -1)
        return torch.cat([first, patches.flatten(2).transpose(1, 2)], dim=1) + self._places(pixels, patches)

    def _places(self, pixels: Tensor, patches: Tensor) -> Tensor:
        """The trained grid, stretched to another; DINO adds a tenth of a patch to the ratio, and so it stays."""
        (height, width), (rows, columns) = pixels.shape[-2:], patches.shape[-2:]
        side = math.isqrt(self.pos_embed.shape[-2] - 1)
        if height == width and rows == side:
            return self.pos_embed
        grid = self.pos_embed[:, 1:].reshape(1, side, side, -1).permute(0, 3, 1, 2)
        stretched = F.interpolate(grid, scale_factor=((rows + 0.1) / side, (columns + 0.1) / side), mode="bicubic")
        return torch.cat([self.pos_embed[:, :1], stretched.flatten(2).transpose(1, 2)], dim=1)
