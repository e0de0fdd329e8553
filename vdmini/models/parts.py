"""What a transformer is made of: stacks of blocks, modules tied to places in them, and weights of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn


@dataclass(frozen=True)
class Beside:
    """Modules that each add to what a block of the first stack made, because of its place, and leave with that block.

    `attribute` lists them; `hands_on` names the argument that each hands on to the next of them, where there is one.
    """

    attribute: str
    hands_on: str | None = None


class OwnTensors(nn.Module):
    """The buffers that a module holds itself, in none of its submodules, and its weights, as a module of their own.

    It shares the owner's tables, so weights assigned to it are the owner's, and it counts every buffer as part of the
    state: a student gets copies even of those that are not saved.
    """

    def __init__(self, owner: nn.Module, weights: bool) -> None:
        super().__init__()
        if weights:
            self._parameters = owner._parameters
        self._buffers = owner._buffers


@dataclass(frozen=True)
class Stack:
    """Blocks that run one after the other: the stage they form, the attribute that lists them, the option that counts.

    Blocks of stacks with the same option run in turn, and leave together. `first` and `last` name the blocks at its
    ends where they are built unlike the others: they stay the student's first and last and are in no stage.
    """

    stage: str
    attribute: str
    option: str
    last: str | None = None
    first: str | None = None

    @property
    def start(self) -> int:
        """The place of the first block that may leave."""
        return int(self.first is not None)

    @property
    def fixed(self) -> int:
        """How many blocks may not leave."""
        return self.start + (self.last is not None)

    def modules(self, denoiser: Any) -> Sequence[nn.Module]:
        """The blocks of a denoiser, in the order they run."""
        return [*getattr(denoiser, self.attribute)]

    def blocks(self, denoiser: nn.Module) -> dict[str, nn.Module]:
        """The blocks of a denoiser by name, in the order they run."""
        modules = self.modules(denoiser)
        names = [f"{self.stage}.{index}" for index in range(len(modules))]
        if self.first is not None:
            names[0] = self.first
        if self.last is not None:
            names[-1] = self.last
        return dict(zip(names, modules, strict=True))


def called_parts(module: nn.Module) -> list[nn.Module]:
    """The modules that a forward pass calls: a list of them is not called itself."""
    return [*module] if isinstance(module, nn.ModuleList) else [module]
