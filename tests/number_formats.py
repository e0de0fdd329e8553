"""The number format in which tests run suites whose own is bfloat16."""

from __future__ import annotations

import torch

# Without instructions for bfloat16 a processor imitates it, a hundred times as slowly as it computes in float32.
NUMBERS = () if torch.cpu._is_avx512_bf16_supported() else ("dtype=float32", "distill.mixed_precision=no")
