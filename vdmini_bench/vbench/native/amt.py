"""AMT-S (Li et al. 2023), the frame between two others: how well it is guessed says how smooth motion is."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vdmini_bench.vbench.native.correlation import (
    LEVELS,
    correlation_pyramid,
    frame_encoder,
    look_up,
    pad_to_multiple,
    pixel_grid,
)
from vdmini_bench.vbench.native.frames import Clip

RADIUS = 3
WIDTHS = (20, 32, 44, 56)
SIDE = 20
FLOWS = 3
DIVISOR = 16
leaky = nn.LeakyReLU(0.1)


class ConvolutionPrelu(nn.Sequential):
    """A convolution and an activation whose slope is learnt."""

    def __init__(self, into: int, out: int, stride: int = 1) -> None:
        super().__init__(nn.Conv2d(into, out, 3, stride, 1), nn.PReLU(out))


class SideBlock(nn.Module):
    """Five convolutions beside the identity; the second and fourth see the last channels only."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1, self.conv3 = ConvolutionPrelu(width, width), ConvolutionPrelu(width, width)
        self.conv2, self.conv4 = ConvolutionPrelu(SIDE, SIDE), ConvolutionPrelu(SIDE, SIDE)
        self.conv5 = nn.Conv2d(width, width, 3, padding=1)
        self.prelu = nn.PReLU(width)

    def forward(self, values: Tensor) -> Tensor:
        """B C H W to B C H W."""
        inner = self.conv3(self._with_side(self.conv1(values), self.conv2))
        return self.prelu(values + self.conv5(self._with_side(inner, self.conv4)))

    @staticmethod
    def _with_side(values: Tensor, convolution: nn.Module) -> Tensor:
        return torch.cat([values[:, :-SIDE], convolution(values[:, -SIDE:])], dim=1)


class Decoder(nn.Module):
    """Features of one size to those of twice the size."""

    def __init__(self, into: int, width: int, out: int) -> None:
        super().__init__()
        grow = nn.ConvTranspose2d(width, out, 4, 2, 1)
        self.convblock = nn.Sequential(ConvolutionPrelu(into, width), SideBlock(width), grow)

    def forward(self, *values: Tensor) -> Tensor:
        """B C H W, whose channels add up to `into`, to B `out` 2H 2W."""
        return self.convblock(torch.cat(values, dim=1))


class Update(nn.Module):
    """Corrects features and both flows by the likeness that is found where they point, at an eighth of the size."""

    def __init__(self, width: int, shrink: int) -> None:
        super().__init__()
        self.shrink = shrink
        self.convc1 = nn.Conv2d(2 * LEVELS * (2 * RADIUS + 1) ** 2, 64, 1)
        self.convf1 = nn.Conv2d(4, 40, 7, padding=3)
        self.convf2 = nn.Conv2d(40, 20, 3, padding=1)
        self.conv = nn.Conv2d(84, 68, 3, padding=1)
        self.gru = _two_convolutions(72 + width, 76)
        self.feat_head = _two_convolutions(76, width)
        self.flow_head = _two_convolutions(76, 4)

    def forward(self, features: Tensor, flows: Tensor, likeness: Tensor) -> tuple[Tensor, Tensor]:
        """What to add to features B C H W, and to flows of their size: B 4 H W."""
        seen = leaky(self.convc1(likeness))
        moved = leaky(self.convf2(leaky(self.convf1(flows))))
        joined = leaky(self.conv(torch.cat([seen, moved], dim=1)))
        state = self.gru(torch.cat([joined, flows, _scaled(features, 1 / self.shrink)], dim=1))
        of_features, of_flows = self.feat_head(state), self.flow_head(state)
        return _scaled(of_features, self.shrink), self.shrink * _scaled(of_flows, self.shrink)


class Pyramid(nn.Sequential):
    """A frame's features at a half, a quarter, an eighth and a sixteenth of its size."""

    def __init__(self) -> None:
        super().__init__()
        for place, (before, width) in enumerate(pairwise((3, *WIDTHS)), start=1):
            stage = nn.Sequential(ConvolutionPrelu(before, width, 2), ConvolutionPrelu(width, width))
            self.add_module(f"pyramid{place}", stage)

    def forward(self, pixels: Tensor) -> list[Tensor]:
        """B 3 H W to four of B C h w, the largest first."""
        found = [pixels]
        for stage in self:
            found.append(stage(found[-1]))
        return found[1:]


class AmtS(nn.Module):
    """The frame in the middle of two: B 3 H W each, from 0 to 1, both sides multiples of 16."""

    def __init__(self) -> None:
        super().__init__()
        first, second, third, fourth = WIDTHS
        self.feat_encoder = frame_encoder((32, 64, 96), 84, nn.InstanceNorm2d, bottleneck=True)
        self.encoder = Pyramid()
        self.decoder4 = Decoder(2 * fourth + 1, 2 * fourth, third + 4)
        self.decoder3 = Decoder(3 * third + 4, 3 * third, second + 4)
        self.decoder2 = Decoder(3 * second + 4, 3 * second, first + 4)
        self.decoder1 = Decoder(3 * first + 4, 3 * first, 8 * FLOWS)
        self.update4, self.update3, self.update2 = Update(third, 1), Update(second, 2), Update(first, 4)
        inner = 6 * FLOWS
        convolutions = (nn.Conv2d(3 * FLOWS, inner, 3, 1, 1), nn.PReLU(inner), nn.Conv2d(inner, 3, 3, 1, 1))
        self.comb_block = nn.Sequential(*convolutions)

    def forward(self, before: Tensor, after: Tensor) -> Tensor:
        """Guess a batch of frames: B 3 H W from 0 to 1."""
        mean = torch.cat([before, after], dim=2).mean(dim=(1, 2, 3), keepdim=True)
        before, after = before - mean, after - mean
        likeness = Likeness(*self.feat_encoder(torch.cat([before, after])).chunk(2))
        (large0, middle0, small0, least0), (large1, middle1, small1, least1) = self.encoder(before), self.encoder(after)

        halfway = before.new_full((len(before), 1, *least0.shape[-2:]), 0.5)
        # Decoders make the flows to both ends, B 4 H W, and features.
        flows, features = self.decoder4(least0, least1, halfway).tensor_split([4], dim=1)
        flows, features = self._corrected(self.update4, likeness, flows, features)
        for update, decoder, seen0, seen1 in (
            (self.update3, self.decoder3, small0, small1),
            (self.update2, self.decoder2, middle0, middle1),
        ):
            decoded = decoder(features, *_both_moved(seen0, seen1, flows), flows)
            step, features = decoded.tensor_split([4], dim=1)
            flows = step + 2 * _scaled(flows, 2)
            flows, features = self._corrected(update, likeness, flows, features)
        found = self.decoder1(features, *_both_moved(large0, large1, flows), flows)
        return self._merged(found, 2 * _scaled(flows, 2), before, after, mean)

    @staticmethod
    def _corrected(update: Update, likeness: Likeness, flows: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
        small = _scaled(flows, 1 / update.shrink) / update.shrink
        of_features, of_flows = update(features, small, likeness.at(small))
        return flows + of_flows, features + of_features

    def _merged(self, found: Tensor, flows: Tensor, before: Tensor, after: Tensor, mean: Tensor) -> Tensor:
        """Three guesses, each of a pair of flows, a mask and a remainder, made one."""
        batch, _, height, width = found.shape
        first, second, masks, rest = found.split([2 * FLOWS, 2 * FLOWS, FLOWS, 3 * FLOWS], dim=1)
        first = first + flows[:, :2].repeat(1, FLOWS, 1, 1)
        second = second + flows[:, 2:].repeat(1, FLOWS, 1, 1)
        shares = torch.sigmoid(masks).reshape(-1, 1, height, width)
        moved0 = moved_by(before.repeat_interleave(FLOWS, dim=0), first.reshape(-1, 2, height, width))
        moved1 = moved_by(after.repeat_interleave(FLOWS, dim=0), second.reshape(-1, 2, height, width))
        guesses = shares * moved0 + (1 - shares) * moved1 + mean.repeat_interleave(FLOWS, dim=0)
        guesses = (guesses + rest.reshape(-1, 3, height, width)).view(batch, FLOWS, 3, height, width)
        return (guesses.mean(dim=1) + self.comb_block(guesses.flatten(1, 2))).clamp(0, 1)


class Likeness:
    """How alike two frames' features are, asked both ways."""

    def __init__(self, first: Tensor, second: Tensor) -> None:
        self.forth = correlation_pyramid(first, second)
        self.back = correlation_pyramid(second, first)
        self.start = pixel_grid(first)

    def at(self, flows: Tensor) -> Tensor:
        """Around where the flows from the middle, B 4 h w, say that a place came from and goes to."""
        # From the middle to an end is half the way from end to end.
        to_first, to_second = (2 * flow for flow in flows.chunk(2, dim=1))
        forth = look_up(self.forth, self.start + to_second, RADIUS)
        return torch.cat([forth, look_up(self.back, self.start + to_first, RADIUS)], dim=1)


def moved_by(values: Tensor, flow: Tensor) -> Tensor:
    """B C H W taken from where a flow B 2 H W points, in pixels; edges go on outside."""
    height, width = flow.shape[-2:]
    x = torch.linspace(-1, 1, width, device=flow.device) + flow[:, 0] / ((width - 1) / 2)
    y = torch.linspace(-1, 1, height, device=flow.device)[:, None] + flow[:, 1] / ((height - 1) / 2)
    places = torch.stack([x, y], dim=-1)
    return F.grid_sample(values, places, padding_mode="border", align_corners=True)


def smoothness(clip: Clip, network: AmtS, device: torch.device) -> float:
    """One less the mean error, of 1, of every second frame as guessed from its neighbours.

    Guesses are cut to whole numbers of 255, as a saved picture's would be in the official code.
    """
    errors = []
    frames = torch.from_numpy(clip.frames).permute(0, 3, 1, 2)
    for at in range(1, len(frames) - 1, 2):
        neighbours, truth = frames[at - 1 : at + 2 : 2].to(device) / 255, frames[at].to(device).int()
        padded, (rows, columns) = pad_to_multiple(neighbours, DIVISOR)
        guess = (network(padded[:1], padded[1:])[0, :, rows, columns] * 255).to(torch.uint8).int()
        errors.append(float((guess - truth).abs().double().mean()))
    return 1.0 - sum(errors) / len(errors) / 255.0


def _two_convolutions(into: int, out: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(into, 76, 3, padding=1), leaky, nn.Conv2d(76, out, 3, padding=1))


def _scaled(values: Tensor, factor: float) -> Tensor:
    if factor == 1:
        return values
    return F.interpolate(values, scale_factor=factor, mode="bilinear", align_corners=False)


def _both_moved(first: Tensor, second: Tensor, flows: Tensor) -> tuple[Tensor, Tensor]:
    return moved_by(first, flows[:, :2]), moved_by(second, flows[:, 2:])
