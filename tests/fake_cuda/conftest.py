"""Everything here needs torch's CUDA build, but no card, and says so where torch was built without CUDA."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from pretended import convert
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.symbolic_shapes import ShapeEnv


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeTensorMode]:
    """Where tensors have a shape, a number format and a device, `cuda` among them, but no values."""
    if not torch.backends.cuda.is_built():
        pytest.skip("needs torch's CUDA build, no card: `nox -s fake_cuda` installs one")
    monkeypatch.setattr(nn.Module, "_apply", convert)
    # Else it asks a card whether it may lower formats there, and does not where there is none.
    monkeypatch.setattr(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
    with FakeTensorMode(allow_non_fake_inputs=True, shape_env=ShapeEnv()) as mode:
        yield mode
