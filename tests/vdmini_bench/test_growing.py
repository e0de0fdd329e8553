from __future__ import annotations

import numpy as np
import pytest

from vdmini_bench.metrics.growing import FIRST, GrowingRows


def test_rows_are_copied_and_come_in_order() -> None:
    rows, buffer = GrowingRows(), np.zeros((2, 3), dtype=np.float32)
    for number in range(2 * FIRST + 1):
        buffer[:] = number
        rows.add(buffer)
    found = rows.array()
    assert found.shape == (2 * FIRST + 1, 2, 3)
    assert found.dtype == np.float32
    assert (found[:, 1, 2] == np.arange(2 * FIRST + 1)).all()


def test_refuses_rows_of_another_shape_and_none_at_all() -> None:
    rows = GrowingRows()
    with pytest.raises(ValueError, match="no rows"):
        rows.array()
    rows.add(np.zeros(3))
    with pytest.raises(ValueError, match=r"shape \(1,\) after rows of \(3,\)"):
        rows.add(np.zeros(1))
