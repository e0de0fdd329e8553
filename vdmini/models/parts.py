"""What a transformer has outside its stacks of blocks: modules tied to places in them, and weights of its own."""

from __future__ import annotations

from dataclasses import dataclass

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
