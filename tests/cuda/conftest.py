"""Everything here needs a GPU, and says so where there is none."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture(scope="session")
def cuda() -> torch.device:
    """The first GPU."""
    if not torch.cuda.is_available():
        pytest.skip("needs a GPU, and torch sees no CUDA device here")
    return torch.device("cuda")
