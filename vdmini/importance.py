"""Importance: what a clip's content and its motion lose when one block, or one unit of blocks, is taken out.

Every candidate is taken out by itself, the same clips are sampled from the same seeds, and each clip is compared with
the one that the whole model gave. A block stands still in place of leaving: it hands on what it was given. A unit
really leaves, with the units it requires.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from vdmini.blocks import BlockGraph

Clips = NDArray[np.uint8]
Distance = Callable[[Clips, Clips], float]


class CannotBypassError(ValueError):
    """A block that has no output in the shape of its input, so that nothing can stand in its place."""


@dataclass(frozen=True)
class Candidate:
    """Something that can be taken out: a `block` that is bypassed, or a `unit` that is pruned.

    `blocks` are those that are gone with it; `depth` is their mean depth.
    """

    kind: str
    name: str
    blocks: tuple[str, ...]
    depth: float


def candidates(graph: BlockGraph) -> list[Candidate]:
    """All prunable blocks, then all units with what they require, in the order they run."""
    depth = {block.name: block.depth for block in graph.blocks}
    found = [Candidate("block", name, (name,), depth[name]) for name in graph.prunable]
    for unit in graph.units:
        blocks = graph.blocks_of([unit.name])
        found.append(Candidate("unit", unit.name, blocks, float(np.mean([depth[name] for name in blocks]))))
    return found


@contextmanager
def bypassed(denoiser: nn.Module, block: str, active: Callable[[], bool] = lambda: True) -> Iterator[None]:
    """Let a block hand on its input for as long as the context lasts, in the passes that are `active`.

    Where a block reads a skip connection beside its input, the skip is dropped. Raises ValueError for an unknown block,
    and CannotBypassError in the forward pass when the block's output has another shape than its input.
    """
    from vdmini.models.registry import family_of

    modules = family_of(denoiser).block_modules(denoiser)
    if block not in modules:
        raise ValueError(f"the denoiser has no block {block!r}: it has {', '.join(modules)}")
    names = [*modules]
    before = modules[names[names.index(block) - 1]][-1]
    stand_in = _StandIn(active)
    with ExitStack() as stack:
        stack.callback(before.register_forward_hook(stand_in.note_width).remove)
        for module in modules[block]:
            stack.callback(module.register_forward_hook(stand_in.hand_on, with_kwargs=True).remove)
        yield


class _StandIn:
    """Hands on a block's input in place of its output; `width` is how many channels the block before it put out."""

    width = 0

    def __init__(self, active: Callable[[], bool]) -> None:
        self.active = active

    def note_width(self, module: nn.Module, inputs: object, output: Any) -> None:
        hidden = output[0] if isinstance(output, tuple) else output
        self.width = hidden.shape[1] if isinstance(hidden, Tensor) and hidden.dim() > 1 else 0

    def hand_on(self, module: nn.Module, inputs: tuple[Any, ...], named: Mapping[str, Any], output: object) -> object:
        if not self.active():
            return output
        given = [*inputs, *(named[name] for name in ("hidden_states", "encoder_hidden_states") if name in named)]
        if isinstance(output, Tensor):
            return self._in_shape_of(output, given[0])
        if isinstance(output, tuple):
            # A block that updates two streams, such as video and text, hands on both.
            return tuple(self._in_shape_of(part, given[place]) for place, part in enumerate(output))
        sample = getattr(output, "sample", None)
        if not isinstance(sample, Tensor):
            raise CannotBypassError(f"nothing can stand for the {type(output).__name__} of a {type(module).__name__}")
        return type(output)(sample=self._in_shape_of(sample, given[0]))  # type: ignore[call-arg]

    def _in_shape_of(self, output: Tensor, given: Tensor) -> Tensor:
        """The input where it has the output's shape; of an input with a skip appended, what came before the skip."""
        wide = given.dim() > 1 and given.shape[1] > output.shape[1] == self.width
        handed_on = given.narrow(1, 0, self.width) if wide else given
        if handed_on.shape != output.shape:
            raise CannotBypassError(f"input {tuple(given.shape)} cannot stand for output {tuple(output.shape)}")
        return handed_on


def block_seconds(denoiser: nn.Module, inputs: Mapping[str, Tensor], runs: int = 5) -> dict[str, float]:
    """The median time of each block in `runs` forward passes after one to warm up, in seconds.

    On a GPU every block is waited for, so that the sum may exceed an unwatched pass.
    """
    from vdmini.models.registry import family_of

    watch = _Stopwatch(next(denoiser.parameters()).device)
    modules = family_of(denoiser).block_modules(denoiser)
    with ExitStack() as stack, torch.inference_mode():
        for name, submodules in modules.items():
            for submodule in submodules:
                stack.callback(submodule.register_forward_pre_hook(watch.enter).remove)
                stack.callback(submodule.register_forward_hook(partial(watch.leave, name)).remove)
        passes = []
        for _ in range(runs + 1):
            watch.spent = dict.fromkeys(modules, 0.0)
            denoiser(**inputs)
            passes.append(watch.spent)
    return {name: float(np.median([spent[name] for spent in passes[1:]])) for name in modules}


class _Stopwatch:
    """Adds up the time between a module's hooks, by block."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.spent, self.started = device, dict[str, float](), 0.0

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def enter(self, module: nn.Module, inputs: object) -> None:
        self.started = self._now()

    def leave(self, block: str, module: nn.Module, inputs: object, output: object) -> None:
        self.spent[block] += self._now() - self.started


def content_distance(whole: Clips, changed: Clips) -> float:
    """How far each frame's content moved, wherever in the frame it is: relative distance of amplitude spectra.

    Both B T H W C uint8, paired by clip and frame. The amplitude spectrum of a frame (per colour, without the phases)
    stays the same when what it shows is shifted round, so that a change of motion alone costs little. 0 is equal, 1 as
    far as a black frame.
    """
    a, b = _amplitudes(whole), _amplitudes(changed)
    return float(((a - b).norm(dim=-1) / a.norm(dim=-1).clamp_min(1e-6)).mean())


def motion_distance(whole: Clips, changed: Clips) -> float:
    """How far the change from frame to frame moved: relative distance of temporal differences, both B T H W C uint8.

    0 is equal, 1 about as far as a clip that stands still.
    """
    a, b = (torch.from_numpy(clips).float().diff(dim=1).flatten(1) for clips in (whole, changed))
    return float(((a - b).norm(dim=1) / a.norm(dim=1).clamp_min(1e-6)).mean())


def _amplitudes(clips: Clips) -> Tensor:
    """B T (C H W') amplitudes; the mean colour is a part of them, weighted like any other frequency."""
    frames = torch.from_numpy(clips).permute(0, 1, 4, 2, 3).float() / 255
    return torch.fft.rfft2(frames, norm="ortho").abs().flatten(2)


def marginal_scores(graph: BlockGraph, scores: Mapping[str, float]) -> dict[str, float]:
    """What each unit's loss adds to that of the units it requires, 0 or more: what the planner sums.

    `scores` of a unit count its requirements too. Raises KeyError for a unit without a score.
    """
    by_name = {unit.name: unit for unit in graph.units}

    def required(name: str) -> set[str]:
        direct = {*by_name[name].requires}
        return direct.union(*(required(each) for each in direct))

    marginal: dict[str, float] = {}
    for name in sorted(by_name, key=lambda name: len(required(name))):
        marginal[name] = max(0.0, scores[name] - sum(marginal[each] for each in required(name)))
    return marginal
