"""RAFT (Teed and Deng 2020), the optical flow that says whether a clip moves, and VBench's two rules on it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray
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

RADIUS = 4
STEPS = 20
HIDDEN = 128
FACTOR = 8
# Frames a second at which motion is looked for.
RATE = 8


class MotionEncoder(nn.Module):
    """Flow B 2 h w and the likeness found there to B 128 h w."""

    def __init__(self) -> None:
        super().__init__()
        self.convc1 = nn.Conv2d(LEVELS * (2 * RADIUS + 1) ** 2, 256, 1)
        self.convc2 = nn.Conv2d(256, 192, 3, padding=1)
        self.convf1 = nn.Conv2d(2, 128, 7, padding=3)
        self.convf2 = nn.Conv2d(128, 64, 3, padding=1)
        self.conv = nn.Conv2d(256, 126, 3, padding=1)

    def forward(self, flow: Tensor, likeness: Tensor) -> Tensor:
        """Encode a batch."""
        seen = F.relu(self.convc2(F.relu(self.convc1(likeness))))
        moved = F.relu(self.convf2(F.relu(self.convf1(flow))))
        return torch.cat([F.relu(self.conv(torch.cat([seen, moved], dim=1))), flow], dim=1)


# From state and motion, both B 128 h w; the context's share is made already.
Gate = Callable[[Tensor, Tensor], Tensor]


class GatedUnit(nn.Module):
    """A recurrent unit of convolutions along rows, then along columns."""

    def __init__(self, into: int) -> None:
        super().__init__()
        for place, kernel in enumerate(((1, 5), (5, 1)), start=1):
            for gate in "zrq":
                self.add_module(f"conv{gate}{place}", nn.Conv2d(HIDDEN + into, HIDDEN, kernel))

    def gates(self, context: Tensor) -> list[tuple[Gate, Gate]]:
        """Of rows and of columns: update and reset in one, and the proposal; the context is that of all steps."""
        return [
            (self._gate(context, f"convz{place}", f"convr{place}"), self._gate(context, f"convq{place}"))
            for place in (1, 2)
        ]

    def forward(self, state: Tensor, moved: Tensor, gates: list[tuple[Gate, Gate]]) -> Tensor:
        """The next state, B 128 h w."""
        for update_and_reset, proposal in gates:
            share, kept = torch.sigmoid(update_and_reset(state, moved)).chunk(2, dim=1)
            state = (1 - share) * state + share * torch.tanh(proposal(kept * state, moved))
        return state

    def _gate(self, context: Tensor, *names: str) -> Gate:
        weight = torch.cat([self.get_parameter(f"{name}.weight") for name in names])
        bias = torch.cat([self.get_parameter(f"{name}.bias") for name in names])
        of_state, of_context, of_moved = weight.split(HIDDEN, dim=1)
        rest = torch.cat([of_state, of_moved], dim=1)
        made = F.conv2d(context, of_context, bias, padding="same")
        return lambda state, moved: F.conv2d(torch.cat([state, moved], dim=1), rest, padding="same") + made


class Refinement(nn.Module):
    """What is repeated: from likeness and flow to a better flow."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = MotionEncoder()
        self.gru = GatedUnit(2 * HIDDEN)
        first, last = nn.Conv2d(HIDDEN, 256, 3, padding=1), nn.Conv2d(256, 2, 3, padding=1)
        self.flow_head = nn.Sequential(OrderedDict(conv1=first, relu=nn.ReLU(), conv2=last))
        self.mask = nn.Sequential(nn.Conv2d(HIDDEN, 256, 3, padding=1), nn.ReLU(), nn.Conv2d(256, 64 * 9, 1))


class Raft(nn.Module):
    """Flow between neighbouring frames, in pixels.

    Features are made once for a frame, what the steps make of the context once for a pair, and flow is brought to full
    size after the last step only; the official code does all of it more often.
    """

    def __init__(self) -> None:
        super().__init__()
        self.fnet = frame_encoder((64, 96, 128), 256, nn.InstanceNorm2d, bottleneck=False)
        self.cnet = frame_encoder((64, 96, 128), 2 * HIDDEN, nn.BatchNorm2d, bottleneck=False)
        self.update_block = Refinement()

    def features(self, frame: Tensor) -> Tensor:
        """1 3 H W from 0 to 255, both sides multiples of 8, to 1 256 H/8 W/8."""
        return self.fnet(_centred(frame))

    def forward(self, frame: Tensor, features: Tensor, next_features: Tensor) -> Tensor:
        """The flow from a frame 1 3 H W, from 0 to 255, to the one whose features are given: 1 2 H W."""
        state, context = self.cnet(_centred(frame)).split(HIDDEN, dim=1)
        state, context = torch.tanh(state), torch.relu(context)
        pyramid = correlation_pyramid(features, next_features)
        gates = self.update_block.gru.gates(context)
        start = pixel_grid(features)
        place = start
        for _ in range(STEPS):
            flow = place - start
            moved = self.update_block.encoder(flow, look_up(pyramid, place, RADIUS))
            state = self.update_block.gru(state, moved, gates)
            place = place + self.update_block.flow_head(state)
        return enlarge(place - start, 0.25 * self.update_block.mask(state))


def enlarge(flow: Tensor, mask: Tensor) -> Tensor:
    """Flow B 2 h w to B 2 8h 8w: each pixel is a mean of nine neighbours, weighted by the softmax of the mask."""
    batch, _, height, width = flow.shape
    weights = mask.view(batch, 1, 9, FACTOR, FACTOR, height, width).softmax(dim=2)
    around = F.unfold(FACTOR * flow, 3, padding=1).view(batch, 2, 9, 1, 1, height, width)
    large = (weights * around).sum(dim=2).permute(0, 1, 4, 2, 5, 3)
    return large.reshape(batch, 2, FACTOR * height, FACTOR * width)


class FlowMeter:
    """How far the fastest pixels move between frames of one clip; what was made of a frame is kept."""

    def __init__(self, network: Raft, frames: NDArray[np.uint8], device: torch.device) -> None:
        self.network, self.frames, self.device = network, frames, device
        self.kept: dict[int, Tensor] = {}

    def speed(self, first: int, second: int, share: float) -> float:
        """The mean magnitude of the flow of the fastest `share` of pixels, from one frame to another."""
        flow = self.network(self._pixels(first), self._features(first), self._features(second))[0]
        speeds = flow.square().sum(dim=0).sqrt().flatten()
        return float(speeds.topk(int(len(speeds) * share)).values.mean())

    def _pixels(self, place: int) -> Tensor:
        frame = torch.from_numpy(self.frames[place]).permute(2, 0, 1)[None].float()
        return pad_to_multiple(frame.to(self.device), FACTOR)[0]

    def _features(self, place: int) -> Tensor:
        if place not in self.kept:
            # Neighbours, and the two ends, which the filter compares last.
            ends = (0, len(self.frames) - 1)
            self.kept = {known: value for known, value in self.kept.items() if known in ends or known == place - 1}
            self.kept[place] = self.network.features(self._pixels(place))
        return self.kept[place]


def moves(clip: Clip, network: Raft, device: torch.device) -> bool:
    """VBench's dynamic_degree of one clip: whether enough frames, at 8 a second, have fast pixels.

    Pairs are looked at until the answer is certain.
    """
    frames = clip.frames[:: max(1, round(clip.frames_per_second / RATE))]
    limit = 6.0 * (min(frames.shape[1:3]) / 256.0)
    needed = round(4 * (len(frames) / 16.0))
    meter = FlowMeter(network, frames, device)
    return reached(needed, len(frames) - 1, (meter.speed(at, at + 1, 0.05) > limit for at in range(len(frames) - 1)))


def reached(needed: int, count: int, fast: Iterator[bool]) -> bool:
    """Whether at least `needed` of `count` are true, and there is one at all; stops as soon as that is known."""
    found = 0
    for looked_at, is_fast in enumerate(fast, start=1):
        found += is_fast
        if found >= needed:
            return True
        if found + count - looked_at < needed:
            return False
    return False


def is_static(clip: Clip, network: Raft, device: torch.device) -> bool:
    """The official filter before temporal_flickering: few fast pairs among all frames, and alike first and last ones.

    Which way the two ends are compared follows the official code: both.
    """
    frames = clip.frames
    limit = 3.0 * (min(frames.shape[1:3]) / 256.0)
    allowed = round(2 * (len(frames) / 16.0))
    meter = FlowMeter(network, frames, device)
    last = len(frames) - 1
    if any(meter.speed(*pair, 0.02) > limit * allowed * 2 for pair in ((0, last), (last, 0))):
        return False
    fast = (meter.speed(at, at + 1, 0.02) > limit for at in range(last))
    return not reached(allowed + 1, last, fast)


def _centred(pixels: Tensor) -> Tensor:
    return 2 * (pixels / 255) - 1
