"""Where a denoiser pass spends its time: block by block, beside the FLOPs that each block computes."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn

from vdmini.blocks import BlockGraph, ModelInput
from vdmini.models.registry import block_graph, family_of
from vdmini_bench.speed.memory_traffic import elements_by_block
from vdmini_bench.speed.scopes import PhaseClock

# What lies between the blocks: concatenated skips, casts, Python.
OUTSIDE = "outside"


@dataclass(frozen=True)
class BlockTime:
    """One block's share of a pass: milliseconds of every run, FLOPs, and bytes moved if nothing is fused."""

    model: str
    block: str
    stage: str
    samples_ms: tuple[float, ...]
    flops: int
    bytes_moved: int

    @property
    def median_ms(self) -> float:
        """The median run."""
        return statistics.median(self.samples_ms)

    @property
    def flops_per_second(self) -> float:
        """The rate that the block achieves."""
        return self.flops / (self.median_ms / 1000) if self.median_ms else 0.0

    def to_json(self, peak: float) -> dict[str, Any]:
        """As plain JSON data, with the share of the matrix-product peak that the block reaches."""
        rate = self.flops_per_second
        return {**asdict(self), "median_ms": self.median_ms, "tflops_per_s": rate / 1e12, "share_of_peak": rate / peak}


@dataclass(frozen=True)
class BlockCosts:
    """A denoiser's blocks with their FLOPs, and the bytes that each moves if nothing is fused, where asked for."""

    graph: BlockGraph
    bytes_moved: Mapping[str, int]


def block_costs(denoiser: nn.Module, size: ModelInput, *, with_traffic: bool = True) -> BlockCosts:
    """The costs of a denoiser's blocks in one pass at a size; before its forward pass is compiled or replaced.

    Bytes take a second pass on the meta device, which `with_traffic=False` saves; blocks cannot be timed then.
    """
    if not with_traffic:
        return BlockCosts(block_graph(denoiser, size), {})
    family = family_of(denoiser)
    elements = elements_by_block(denoiser, family.example_inputs(denoiser, size), family.block_modules)
    element = next(denoiser.parameters()).element_size()
    return BlockCosts(block_graph(denoiser, size), {name: count * element for name, count in elements.items()})


def time_blocks(
    calls: Mapping[str, tuple[nn.Module, Callable[[], object]]],
    costs: Mapping[str, BlockCosts],
    *,
    runs: int,
    warmup: int,
    device: torch.device,
) -> list[BlockTime]:
    """Time the blocks of each model's denoiser while its call runs, in interleaved repetitions.

    `calls` give each model's denoiser and a call of it, `costs` those of its blocks at the call's size. What lies
    between blocks is the block `outside`. On CUDA the clock is the device's own, so a block's time is what the device
    spent on it or waited within it.
    """
    clock = PhaseClock(device)
    samples: dict[str, dict[str, list[float]]] = {model: {} for model in calls}
    with torch.inference_mode():
        for repetition in range(warmup + runs):
            for model, (denoiser, call) in calls.items():
                with _listening(denoiser, clock):
                    start = clock.mark()
                    call()
                    end = clock.mark()
                phases = clock.take()
                if repetition < warmup:
                    continue
                inside = sum(phases.values())
                phases[OUTSIDE] = max(0.0, clock.between(start, end) - inside)
                for block, milliseconds in phases.items():
                    samples[model].setdefault(block, []).append(milliseconds)
    return [row for model in calls for row in _rows(model, costs[model], samples[model])]


def _rows(model: str, costs: BlockCosts, samples: Mapping[str, list[float]]) -> list[BlockTime]:
    rows = [
        BlockTime(
            model, block.name, block.stage, tuple(samples[block.name]), block.flops, costs.bytes_moved[block.name]
        )
        for block in costs.graph.blocks
        if block.name in samples
    ]
    return [*rows, BlockTime(model, OUTSIDE, OUTSIDE, tuple(samples[OUTSIDE]), 0, 0)]


def stage_lines(blocks: Sequence[BlockTime], peak: float) -> tuple[list[str], list[list[str]]]:
    """The header and one line a stage and model for people.

    Stages are numbered in each model for itself, so that no student's stage is set against the teacher's of its name.
    """
    header = ["stage", "model", "ms", "of the pass", "TFLOP", "TFLOP/s", "of peak"]
    stages, models = (list(dict.fromkeys(getattr(each, name) for each in blocks)) for name in ("stage", "model"))
    passes = {model: _together(each for each in blocks if each.model == model) for model in models}
    lines = []
    for stage in stages:
        for model in models:
            time, flops = _together(each for each in blocks if (each.stage, each.model) == (stage, model))
            if not time:
                continue
            rate = 1000 * flops / time
            line = [stage, model, f"{time:.4g}", f"{time / passes[model][0]:.1%}"]
            line += [f"{flops / 1e12:.4g}", f"{rate / 1e12:.4g}", f"{rate / peak:.1%}"] if flops else ["-"] * 3
            lines.append(line)
    return header, lines


def _together(blocks: Iterable[BlockTime]) -> tuple[float, int]:
    """Milliseconds and FLOPs of several blocks."""
    listed = [*blocks]
    return sum(each.median_ms for each in listed), sum(each.flops for each in listed)


@contextmanager
def _listening(denoiser: nn.Module, clock: PhaseClock) -> Iterator[None]:
    handles = []
    for name, modules in family_of(denoiser).block_modules(denoiser).items():
        for module in modules:
            handles += clock.listen(module, name)
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
