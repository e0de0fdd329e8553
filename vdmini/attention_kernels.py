"""Which of torch's kernels of attention is the fastest here, and a network that asks for them in that order."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import wraps
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

# All compute the same up to rounding. `MATH`, which keeps every score in memory, is for what no other can do.
FUSED = {
    SDPBackend.CUDNN_ATTENTION: torch.backends.cuda.cudnn_sdp_enabled,
    SDPBackend.FLASH_ATTENTION: torch.backends.cuda.flash_sdp_enabled,
    SDPBackend.EFFICIENT_ATTENTION: torch.backends.cuda.mem_efficient_sdp_enabled,
}
HEADS, TOKENS, ROUNDS = 8, 8192, 3


@torch.no_grad()
def fastest_first(
    device: torch.device, dtype: torch.dtype, head_dim: int, *, tokens: int = TOKENS
) -> tuple[SDPBackend, ...]:
    """The fused kernels that can do self-attention of 8 heads on a device, by the time that each was seen to take.

    Empty where there is none. Takes some 20 ms on a large GPU.
    """
    generator = torch.Generator(device).manual_seed(0)
    query = torch.randn(1, HEADS, tokens, head_dim, generator=generator, device=device).to(dtype)
    seconds: dict[SDPBackend, float] = {}
    for backend, is_enabled in FUSED.items():
        if is_enabled():
            # torch warns of each reason why this device has no such kernel, or not for this dtype or size.
            with warnings.catch_warnings(action="ignore"), suppress(RuntimeError):
                seconds[backend] = min(_seconds(backend, query) for _ in range(ROUNDS))
    return tuple(sorted(seconds, key=lambda backend: seconds[backend]))


def _seconds(backend: SDPBackend, query: torch.Tensor) -> float:
    def attend() -> float:
        nn.functional.scaled_dot_product_attention(query, query, query)
        if query.is_cuda:
            torch.cuda.synchronize(query.device)
        return time.perf_counter()

    with sdpa_kernel(backend):
        # The first call may load or plan what the second one uses.
        started = attend()
        return attend() - started


def preferring(order: Sequence[SDPBackend], forward: Callable[..., Any]) -> Callable[..., Any]:
    """`forward` with torch's attention trying kernels in an order; those that a caller has turned off stay off."""

    @wraps(forward)
    def preferred(*given: Any, **named: Any) -> Any:
        allowed = [backend for backend in (*order, *FUSED) if FUSED[backend]()]
        if torch.backends.cuda.math_sdp_enabled():
            allowed.append(SDPBackend.MATH)
        with sdpa_kernel(allowed, set_priority=True):
            return forward(*given, **named)

    return preferred
