"""What a device can do at best, measured in the same run: its matrix products and its memory."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from vdmini_bench.speed.timing import time_once

REPETITIONS = 10


@dataclass(frozen=True)
class Roofline:
    """The fastest square matrix product of a device in a dtype, FLOP/s, and the fastest copy, bytes/s read and written.

    `side` is the product's: large enough that nothing but the product counts.
    """

    dtype: str
    flops_per_second: float
    bytes_per_second: float
    side: int


def measure_roofline(device: torch.device, dtype: torch.dtype) -> Roofline:
    """Measure both, a second or so; the fastest of several runs, since nothing makes a device faster than it is."""
    side = 8192 if device.type == "cuda" else 1024
    # Past every cache: 1 GiB on a GPU, 64 MiB on a CPU.
    copied = 2**30 if device.type == "cuda" else 2**26
    generator = torch.Generator(device).manual_seed(0)
    left, right = (torch.randn(side, side, generator=generator, device=device).to(dtype) for _ in range(2))
    source = torch.empty(copied, dtype=torch.uint8, device=device).fill_(1)
    target = torch.empty_like(source)
    with torch.inference_mode():
        product = min(time_once(lambda: left @ right, device) for _ in range(REPETITIONS))
        copy = min(time_once(lambda: target.copy_(source), device) for _ in range(REPETITIONS))
    return Roofline(
        dtype=str(dtype).removeprefix("torch."),
        flops_per_second=2 * side**3 / (product / 1000),
        bytes_per_second=2 * copied / (copy / 1000),
        side=side,
    )
