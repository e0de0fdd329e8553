"""How many bytes each block of a denoiser moves when every operation reads its inputs and writes its outputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from vdmini.cost import count_by_block

ATTENTION: Any = nn.functional.scaled_dot_product_attention
# Named as views are not, yet they move nothing.
FREE = ("_unsafe_view", "empty", "detach", "lift_fresh")


class Traffic(TorchDispatchMode):
    """Counts the elements that operations read and write while it is active; views are free."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0
        self.paused = False

    def __torch_dispatch__(
        self, func: Any, types: object, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> object:
        """Run the operation and count it."""
        output: object = func(*args, **(kwargs or {}))
        if not self.paused and not _is_free(func):
            self.add((args, kwargs, output))
        return output

    def add(self, tensors: object) -> None:
        """Count the elements of all tensors in a nest of containers."""
        self.total += sum(leaf.numel() for leaf in tree_leaves(tensors) if isinstance(leaf, Tensor))


class _FusedAttention(TorchFunctionMode):
    """Counts attention as one kernel, which keeps its scores to itself; on the meta device it would come apart."""

    def __init__(self, traffic: Traffic) -> None:
        super().__init__()
        self._traffic = traffic

    def __torch_function__(
        self, func: Any, types: object, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> object:
        """Run the function, and count it whole where it is attention."""
        if func is not ATTENTION:
            return func(*args, **(kwargs or {}))
        self._traffic.paused = True
        try:
            output: object = func(*args, **(kwargs or {}))
        finally:
            self._traffic.paused = False
        self._traffic.add((args, kwargs, output))
        return output


def elements_by_block(
    module: nn.Module,
    inputs: Mapping[str, object],
    block_modules: Callable[[nn.Module], Mapping[str, Sequence[nn.Module]]],
) -> dict[str, int]:
    """Elements that each block reads and writes in `module(**inputs)`, operation by operation and nothing fused.

    Times the bytes of an element this bounds the traffic from above: kernels that fuse operations, or find their
    inputs in a cache, move less. Computed on the meta device.
    """
    traffic = Traffic()
    modes = _FusedAttention(traffic), traffic
    return count_by_block(module, inputs, block_modules, traffic, *modes)


def _is_free(func: Any) -> bool:
    name = func._schema.name.partition("::")[2]
    if name in FREE or name.startswith("empty"):
        return True
    aliases = [returned.alias_info for returned in func._schema.returns]
    return any(alias is not None and not alias.is_write for alias in aliases)
