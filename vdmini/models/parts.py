"""The modules around a transformer's stacks, as its blocks `embeddings` and `output` are made of them."""

from __future__ import annotations

from torch import nn


class OwnTensors(nn.Module):
    """The weights and buffers that a module holds itself, in none of its submodules, as a module of their own.

    It shares the owner's tables, so weights assigned to it are the owner's, and it counts every buffer as part of the
    state: a student gets copies even of those that are not saved.
    """

    def __init__(self, owner: nn.Module) -> None:
        super().__init__()
        self._parameters = owner._parameters
        self._buffers = owner._buffers


def called_parts(module: nn.Module) -> list[nn.Module]:
    """The modules that a forward pass calls: a list of them is not called itself."""
    return [*module] if isinstance(module, nn.ModuleList) else [module]
