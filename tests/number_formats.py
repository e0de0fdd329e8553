"""The number format in which tests run suites whose own is bfloat16."""

from __future__ import annotations

import torch

# Without instructions for it a processor imitates it, a hundred times as slowly as it computes in float32.
FAST_BFLOAT16 = torch.cpu._is_avx512_bf16_supported()
NUMBERS = () if FAST_BFLOAT16 else ("dtype=float32", "distill.mixed_precision=no")
