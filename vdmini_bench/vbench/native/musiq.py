"""MUSIQ (Ke et al. 2021) as trained on SPAQ: the technical quality of frames of any size, from 0 to 100.

A frame is seen at its own size and at two smaller ones, as patches whose places are hashed to a grid of ten by ten. The
official code pads each small size to a fixed number of patches and masks them out of the attention; here they are not
made at all, which gives the same number.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vdmini_bench.metrics.i3d import pad_same
from vdmini_bench.vbench.native.transformer import Block, class_token, rename

PATCH = 32
GRID = 10
SMALLER = (224, 384)
LARGEST = 512
_NAMES = {"module.": "", "transformer_encoder.transformer.encoderblock_": "blocks."}
_NAMES |= {"transformer_encoder.": "", ".attention.": ".attn.", ".attn.out.": ".attn.proj."}
_NAMES |= {"posembed_input.": "", "scaleembed_input.": ""}


class StandardisedConvolution(nn.Conv2d):
    """A convolution whose kernels have mean 0 and deviation 1, padded so that sizes are divided by the stride."""

    def forward(self, values: Tensor) -> Tensor:
        """B C H W to B D h w."""
        deviation, mean = torch.std_mean(self.weight, dim=(1, 2, 3), keepdim=True)
        padded = pad_same(values, self.kernel_size, self.stride)
        return F.conv2d(padded, (self.weight - mean) / (deviation + 1e-5), stride=self.stride)


class Bottleneck(nn.Module):
    """Three convolutions beside a fourth."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.conv1 = StandardisedConvolution(width, width, 1, bias=False)
        self.gn1 = nn.GroupNorm(32, width, eps=1e-4)
        self.conv2 = StandardisedConvolution(width, width, 3, bias=False)
        self.gn2 = nn.GroupNorm(32, width, eps=1e-4)
        self.conv3 = StandardisedConvolution(width, out, 1, bias=False)
        self.gn3 = nn.GroupNorm(32, out, eps=1e-4)
        self.conv_proj = StandardisedConvolution(width, out, 1, bias=False)
        self.gn_proj = nn.GroupNorm(32, out, eps=1e-4)

    def forward(self, values: Tensor) -> Tensor:
        """B C H W to B D H W."""
        inner = F.relu(self.gn1(self.conv1(values)))
        inner = F.relu(self.gn2(self.conv2(inner)))
        return F.relu(self.gn3(self.conv3(inner)) + self.gn_proj(self.conv_proj(values)))


class Musiq(nn.Module):
    """B 3 H W pixels from -1 to 1 to B scores."""

    def __init__(self, width: int = 384, inner: int = 1152, depth: int = 14, stem: int = 64) -> None:
        super().__init__()
        self.conv_root = StandardisedConvolution(3, stem, 7, 2, bias=False)
        self.gn_root = nn.GroupNorm(32, stem, eps=1e-6)
        self.block1 = Bottleneck(stem, 4 * stem)
        self.embedding = nn.Linear(4 * stem * (PATCH // 4) ** 2, width)
        self.position_emb = nn.Parameter(torch.zeros(1, GRID * GRID, width))
        self.scale_emb = nn.Parameter(torch.zeros(len(SMALLER) + 1, width))
        self.cls = nn.Parameter(torch.zeros(1, 1, width))
        layers = (Block(width, inner=inner, activation=nn.GELU(), epsilon=1e-6) for _ in range(depth))
        self.blocks = nn.ModuleList(layers)
        self.encoder_norm = nn.LayerNorm(width, eps=1e-6)
        self.head = nn.Linear(width, 1)

    def forward(self, frames: Tensor) -> Tensor:
        """Score a batch of frames of one size."""
        longer = max(frames.shape[-2:])
        sizes = [[round(side * target / longer) for side in frames.shape[-2:]] for target in SMALLER]
        seen = [F.interpolate(frames, size, mode="bicubic", align_corners=False) for size in sizes]
        tokens = torch.cat([self._tokens(view, scale) for scale, view in enumerate([*seen, frames])], dim=1)
        tokens = torch.cat([self.cls.expand(len(frames), -1, -1), tokens], dim=1)
        return self.head(self.encoder_norm(class_token(self.blocks, tokens)))[:, 0]

    def _tokens(self, frames: Tensor, scale: int) -> Tensor:
        """Frames of one size as B N C tokens, row by row."""
        rows, columns = (math.ceil(side / PATCH) for side in frames.shape[-2:])
        patches = F.unfold(pad_same(frames, (PATCH, PATCH), (PATCH, PATCH)), PATCH, stride=PATCH).transpose(1, 2)
        values = self.conv_root(patches.reshape(-1, 3, PATCH, PATCH))
        values = F.relu(self.gn_root(values))
        values = self.block1(F.max_pool2d(pad_same(values, (3, 3), (2, 2)), 3, 2))
        # The network was trained elsewhere, where channels come last.
        tokens = self.embedding(values.permute(0, 2, 3, 1).reshape(len(frames), rows * columns, -1))
        places = self.position_emb[0, hashed_places(rows, columns).to(tokens.device)]
        return tokens + places + self.scale_emb[scale]


def hashed_places(rows: int, columns: int) -> Tensor:
    """The grid's place for each patch, row by row: a patch has that of the nearest earlier tenth."""
    grid = torch.arange(GRID).float().view(1, 1, GRID)
    down = F.interpolate(grid, rows, mode="nearest").view(rows, 1)
    across = F.interpolate(grid, columns, mode="nearest").view(1, columns)
    return (down * GRID + across).long().flatten()


def fit_frames(pixels: Tensor) -> Tensor:
    """T 3 H W from 0 to 255, made smaller where the longer side exceeds 512, as MUSIQ takes it: from -1 to 1."""
    longer = max(pixels.shape[-2:])
    if longer > LARGEST:
        scale = LARGEST / longer
        size = [int(scale * side) for side in pixels.shape[-2:]]
        pixels = F.interpolate(pixels, size, mode="bilinear", align_corners=False)
    return (pixels / 255 - 0.5) * 2


def musiq_state(checkpoint: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a published file under our names, with queries, keys and values in one."""
    state = rename(checkpoint, _NAMES)
    joined = {}
    for name, value in state.items():
        if ".attn.query." in name:
            parts = [state.get(name.replace("query", part), value) for part in ("query", "key", "value")]
            joined[name.replace("query", "qkv")] = torch.cat(parts)
        elif ".attn.key." not in name and ".attn.value." not in name:
            joined[name] = value
    return joined
