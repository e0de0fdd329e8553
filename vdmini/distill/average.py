"""The exponential moving average of a network's weights, which is what distillation hands out."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor


class Average:
    """Keeps an average of every weight of a network, each held as the network holds its own: whole or sharded."""

    def __init__(self, network: nn.Module) -> None:
        self.weights = {name: weight.detach().clone() for name, weight in network.named_parameters()}

    @torch.no_grad()
    def update(self, network: nn.Module, decay: float) -> None:
        """Move every average by 1 - `decay` towards the network's weight."""
        for name, weight in network.named_parameters():
            held(self.weights[name]).lerp_(held(weight), 1 - decay)

    def gather(self, keep: bool = True) -> dict[str, Tensor]:
        """Every average whole, on the CPU; all processes must call this together, those that do not `keep` get none."""
        gathered = {}
        for name, weight in self.weights.items():
            whole = weight.full_tensor() if isinstance(weight, DTensor) else weight
            if keep:
                # A copy even on the CPU, where `cpu` alone would hand out what training goes on to change.
                gathered[name] = whole.to("cpu", copy=True)
        return gathered

    def scatter(self, weights: Mapping[str, Tensor]) -> None:
        """Take over what `gather` gave; each process keeps its shard."""
        for name, average in self.weights.items():
            whole = weights[name].to(average.device)
            if isinstance(average, DTensor):
                whole = distribute_tensor(whole, average.device_mesh, average.placements)
            average.copy_(whole)


def held(weight: Tensor) -> Tensor:
    """What this process holds of a weight: all of it, or its shard."""
    return weight.to_local() if isinstance(weight, DTensor) else weight
