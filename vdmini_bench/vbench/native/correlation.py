"""What RAFT and AMT share: features at an eighth of the size, and how alike every place is to every other."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

LEVELS = 4
Norm = Callable[[int], nn.Module]


class Residual(nn.Module):
    """Convolutions beside the identity; where they have a stride, beside another convolution.

    `kernels` and `widths` have one number for each convolution; the stride is that of the first kernel of 3.
    """

    def __init__(self, into: int, widths: Sequence[int], kernels: Sequence[int], norm: Norm, stride: int) -> None:
        super().__init__()
        self.places = range(1, len(widths) + 1)
        self.downsample = None
        if stride > 1:
            self.downsample = nn.Sequential(nn.Conv2d(into, widths[-1], 1, stride), norm(widths[-1]))
        for place, width, kernel in zip(self.places, widths, kernels, strict=True):
            step = stride if place == kernels.index(3) + 1 else 1
            self.add_module(f"conv{place}", nn.Conv2d(into, width, kernel, step, kernel // 2))
            self.add_module(f"norm{place}", norm(width))
            into = width

    def forward(self, values: Tensor) -> Tensor:
        """B C H W to B D h w."""
        beside = values if self.downsample is None else self.downsample(values)
        for place in self.places:
            convolution, norm = self.get_submodule(f"conv{place}"), self.get_submodule(f"norm{place}")
            values = F.relu(norm(convolution(values)))
        return F.relu(beside + values)


def frame_encoder(widths: Sequence[int], out: int, norm: Norm, *, bottleneck: bool) -> nn.Sequential:
    """A network of B 3 H W to B D H/8 W/8.

    `bottleneck` has blocks of three convolutions, the inner ones a quarter as wide, in place of two equal ones.
    """
    before = widths[0]
    parts = {"conv1": nn.Conv2d(3, before, 7, 2, 3), "norm1": norm(before), "relu1": nn.ReLU()}
    for place, width in enumerate(widths, start=1):
        inner, kernels = ((width // 4, width // 4, width), (1, 3, 1)) if bottleneck else ((width, width), (3, 3))
        strided = Residual(before, inner, kernels, norm, stride=1 if place == 1 else 2)
        parts[f"layer{place}"] = nn.Sequential(strided, Residual(width, inner, kernels, norm, stride=1))
        before = width
    return nn.Sequential(OrderedDict(parts, conv2=nn.Conv2d(before, out, 1)))


def correlation_pyramid(first: Tensor, second: Tensor) -> list[Tensor]:
    """How alike each place of `first` is to all of `second`, both B D h w, at four sizes: (B h w) 1 h' w' each."""
    batch, depth, height, width = first.shape
    volume = first.flatten(2).transpose(1, 2) @ second.flatten(2) / depth**0.5
    pyramid = [volume.view(batch * height * width, 1, height, width)]
    for _ in range(LEVELS - 1):
        pyramid.append(F.avg_pool2d(pyramid[-1], 2))
    return pyramid


def look_up(pyramid: Sequence[Tensor], places: Tensor, radius: int) -> Tensor:
    """The likeness around `places` B 2 h w (x, y): B 4(2r+1)^2 h w; within a size, y changes faster than x."""
    batch, _, height, width = places.shape
    steps = torch.arange(-radius, radius + 1, dtype=places.dtype, device=places.device)
    around = torch.cartesian_prod(steps, steps).view(1, 1, -1, 2)
    centres = places.permute(0, 2, 3, 1).reshape(-1, 1, 1, 2)
    found = [_sample(level, centres / 2**step + around) for step, level in enumerate(pyramid)]
    return torch.cat(found, dim=1).view(batch, height, width, -1).permute(0, 3, 1, 2)


def _sample(level: Tensor, places: Tensor) -> Tensor:
    """N 1 H W at places N 1 K 2 in pixels: N K."""
    sides = places.new_tensor([level.shape[-1] - 1, level.shape[-2] - 1])
    return F.grid_sample(level, 2 * places / sides - 1, align_corners=True)[:, 0, 0]


def pixel_grid(like: Tensor) -> Tensor:
    """The x and y of each place of B C h w: 1 2 h w."""
    height, width = like.shape[-2:]
    rows = torch.arange(height, dtype=like.dtype, device=like.device)
    columns = torch.arange(width, dtype=like.dtype, device=like.device)
    return torch.stack(torch.meshgrid(columns, rows, indexing="xy"))[None]


def pad_to_multiple(pixels: Tensor, divisor: int) -> tuple[Tensor, tuple[slice, slice]]:
    """T C H W with its edges repeated until both sides divide, and where the frame is in it."""
    height, width = pixels.shape[-2:]
    down, across = -height % divisor, -width % divisor
    padded = F.pad(pixels, (across // 2, across - across // 2, down // 2, down - down // 2), mode="replicate")
    return padded, (slice(down // 2, down // 2 + height), slice(across // 2, across // 2 + width))
