"""The kernel distance between two sets of features: less biased by small samples than the Frechet distance."""

from __future__ import annotations

from functools import reduce
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vdmini_bench.metrics.frechet import FloatArray, as_rows

if TYPE_CHECKING:
    import torch

    from vdmini_bench.config.protocols import FeatureNetwork


# By network.
KVD_VERSIONS: dict[FeatureNetwork, str] = {
    "i3d-kinetics400": "i3d-kinetics400-polynomial3-unbiased-1",
    "i3d-torchscript": "i3d-torchscript-polynomial3-unbiased-2",
    "videomae-ssv2": "videomae2-giant-ssv2-polynomial3-unbiased-1",
}
ROWS_AT_ONCE = 512


def polynomial_mmd(
    x: NDArray[Any] | torch.Tensor, y: NDArray[Any] | torch.Tensor, unbiased: bool = True, *, degree: int = 3,
    offset: float = 1.0,
) -> float:  # fmt: skip
    """Squared maximum mean discrepancy under the kernel (x . y / D + offset)^degree (Binkowski et al. 2018, "KID").

    Args:
        x: N x D features, any real dtype and range.
        y: M x D features of the same network.
        unbiased: leave each sample's kernel with itself out; the estimate may then be slightly negative.
        degree: of the kernel, 3 in KID.
        offset: added before the power, 1 in KID.

    Raises:
        ValueError: unlike D, fewer than 2 rows, or a value that is not finite.
    """
    first, second = as_rows(x, "x"), as_rows(y, "y")
    if first.shape[1] != second.shape[1]:
        raise ValueError(
            f"features of {first.shape[1]} and {second.shape[1]} dimensions: use one network for both sets"
        )
    between = sum(float(_kernel(rows, second, degree, offset).sum()) for rows in _chunks(first))
    within = [_mean_within(each, unbiased, degree, offset) for each in (first, second)]
    return sum(within) - 2.0 * between / (len(first) * len(second))


def _kernel(x: FloatArray, y: FloatArray, degree: int, offset: float) -> FloatArray:
    base: FloatArray = x @ y.T / x.shape[1] + offset
    # Much faster than a power of an array.
    return reduce(np.multiply, [base] * degree)


def _mean_within(x: FloatArray, unbiased: bool, degree: int, offset: float) -> float:
    count = len(x)
    total = sum(float(_kernel(rows, x, degree, offset).sum()) for rows in _chunks(x))
    if not unbiased:
        return total / count**2
    of_itself = (x * x).sum(axis=1) / x.shape[1] + offset
    return float((total - (of_itself**degree).sum()) / (count * (count - 1)))


def _chunks(x: FloatArray) -> list[FloatArray]:
    # All of a kernel between 13,320 clips would take 1.4 GB.
    return [x[start : start + ROWS_AT_ONCE] for start in range(0, len(x), ROWS_AT_ONCE)]
