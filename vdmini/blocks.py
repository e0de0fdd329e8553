"""Blocks: the units a denoiser is pruned by, and what each of them costs."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class ModelInput:
    """The size of latents that FLOPs are counted at: batch x frames x height x width, height and width in latents."""

    batch: int
    frames: int
    height: int
    width: int

    def __str__(self) -> str:
        return f"batch {self.batch}, {self.frames} frames, {self.height}x{self.width} latents"


@dataclass(frozen=True)
class Block:
    """One unit of a denoiser: what it is called, where it sits and what it costs.

    `stage` groups blocks that share a resolution and a side of the network (`D.0`, `Mid`, `U.1`); `depth` counts from 0
    at the input and output of a UNet towards its middle, and from the first block of a transformer to its last.
    `params` is the number of weights; `flops` are those of one forward pass at the graph's input, 1 MAC = 2 FLOP.
    Blocks that are not `prunable` (embeddings, the convolutions at both ends) always stay.
    """

    name: str
    stage: str
    depth: int
    params: int
    flops: int
    prunable: bool = True


def prunable_names(blocks: Iterable[str], stages: Collection[str]) -> list[str]:
    """The names of blocks that belong to a stage, or are one: what may be removed, in the order given."""
    return [name for name in blocks if name in stages or name.rpartition(".")[0] in stages]


@dataclass(frozen=True)
class Unit:
    """Blocks that can only leave a denoiser together, and the names of the units that must be gone before they can."""

    name: str
    blocks: tuple[str, ...]
    requires: tuple[str, ...] = ()


@dataclass(frozen=True)
class BlockGraph:
    """All blocks of a denoiser in the order they run; together they hold every weight and every FLOP of it.

    `units` are the smallest removals that leave a network which can be wired; no two of them share a block.
    """

    family: str
    input: ModelInput
    blocks: tuple[Block, ...]
    units: tuple[Unit, ...] = ()

    @property
    def params(self) -> int:
        """Number of weights of the whole denoiser."""
        return sum(block.params for block in self.blocks)

    @property
    def flops(self) -> int:
        """FLOPs of one forward pass of the whole denoiser at `input`."""
        return sum(block.flops for block in self.blocks)

    @property
    def prunable(self) -> tuple[str, ...]:
        """Names of the blocks a plan may remove, in the order they run."""
        return tuple(block.name for block in self.blocks if block.prunable)

    @property
    def stages(self) -> tuple[str, ...]:
        """Names of the stages, in the order they run."""
        return tuple(dict.fromkeys(block.stage for block in self.blocks))

    def stage(self, name: str) -> tuple[Block, ...]:
        """The blocks of one stage; empty when the graph has no such stage."""
        return tuple(block for block in self.blocks if block.stage == name)

    def without(self, removed: Collection[str]) -> BlockGraph:
        """The graph that is left after removing blocks, under the names they had before, with the units left whole."""
        return replace(
            self,
            blocks=tuple(block for block in self.blocks if block.name not in removed),
            units=tuple(unit for unit in self.units if not {*unit.blocks} & {*removed}),
        )

    def blocks_of(self, units: Collection[str]) -> tuple[str, ...]:
        """The blocks of the named units and of all units that these require, in the order they run."""
        by_name = {unit.name: unit for unit in self.units}
        waiting, blocks = [*units], set()
        while waiting:
            unit = by_name[waiting.pop()]
            blocks |= {*unit.blocks}
            waiting += unit.requires
        return tuple(block.name for block in self.blocks if block.name in blocks)
