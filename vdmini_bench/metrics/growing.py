"""Small results of many large steps, kept so that memory does not grow with more than the results."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

FIRST = 64


class GrowingRows:
    """Arrays of one shape and dtype, copied into one block that doubles when it is full.

    Kept one by one between the large buffers of a network, they would cut the space those leave into pieces that no
    later buffer fits in: 2,000 clips have cost ten times the memory of 200.
    """

    def __init__(self) -> None:
        self.count = 0
        self._block: NDArray[Any] | None = None

    def add(self, row: NDArray[Any]) -> None:
        """Take a copy of a row.

        Raises:
            ValueError: it has another shape than the first.
        """
        if self._block is None:
            self._block = np.empty((FIRST, *row.shape), dtype=row.dtype)
        if row.shape != self._block.shape[1:]:
            raise ValueError(f"a row of shape {row.shape} after rows of {self._block.shape[1:]}")
        if self.count == len(self._block):
            self._block = np.concatenate([self._block, np.empty_like(self._block)])
        self._block[self.count] = row
        self.count += 1

    def array(self) -> NDArray[Any]:
        """All rows, N x the shape of one.

        Raises:
            ValueError: there are none.
        """
        if self._block is None:
            raise ValueError("no rows were added")
        return self._block[: self.count].copy()
