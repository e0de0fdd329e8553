"""DINO's ViT-B/16 (Caron et al. 2021): what subjects are compared with, on frames of any shape."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vdmini_bench.vbench.native.transformer import (
    HEAD,
    Block,
    build,
    class_token,
    depth_of,
    read_checkpoint,
    require_names,
)


class PatchEmbedding(nn.Module):
    """Squares of an image as tokens; what is left over at the right and below is cut off."""

    def __init__(self, patch: int, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, patch, patch)

    def forward(self, pixels: Tensor) -> Tensor:
        """B 3 H W to B C h w."""
        return self.proj(pixels)


class Dino(nn.Module):
    """B 3 H W normalised pixels to B x D features, those of the class token."""

    def __init__(self, width: int, depth: int, heads: int, patch: int, grid: int) -> None:
        super().__init__()
        self.grid = grid
        self.patch_embed = PatchEmbedding(patch, width)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, grid * grid + 1, width))
        self.blocks = nn.ModuleList(Block(width, heads, activation=F.gelu, epsilon=1e-6) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=1e-6)

    def forward(self, pixels: Tensor) -> Tensor:
        """Embed a batch."""
        patches = self.patch_embed(pixels)
        rows, columns = patches.shape[-2:]
        tokens = torch.cat([self.cls_token.expand(len(pixels), -1, -1), patches.flatten(2).transpose(1, 2)], dim=1)
        square = pixels.shape[-1] == pixels.shape[-2]
        tokens = tokens + self._positions(rows, columns, square=square)
        return self.norm(class_token(self.blocks, tokens))

    def _positions(self, rows: int, columns: int, *, square: bool) -> Tensor:
        """The trained grid, stretched to another; DINO adds a tenth of a patch to the ratio, and so it stays."""
        if square and rows == self.grid:
            return self.pos_embed
        grid = self.pos_embed[:, 1:].reshape(1, self.grid, self.grid, -1).permute(0, 3, 1, 2)
        ratios = ((rows + 0.1) / self.grid, (columns + 0.1) / self.grid)
        stretched = F.interpolate(grid, scale_factor=ratios, mode="bicubic")
        return torch.cat([self.pos_embed[:, :1], stretched.flatten(2).transpose(1, 2)], dim=1)


def load_dino(path: Path) -> Dino:
    """Read `dino_vitbase16_pretrain.pth`.

    Raises:
        MissingAssetsError: it is another file.
    """
    state = read_checkpoint(path)
    require_names(state, ("patch_embed.proj.weight", "pos_embed"), path, "DINO")
    width, _, patch, _ = state["patch_embed.proj.weight"].shape
    grid = round((state["pos_embed"].shape[1] - 1) ** 0.5)
    return build(lambda: Dino(width, depth_of(state), width // HEAD, patch, grid), state, path)
