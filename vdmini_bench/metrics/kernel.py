"""The kernel distance between two sets of features: less biased by small samples than the Frechet distance."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vdmini_bench.metrics.frechet import FloatArray, as_rows

if TYPE_CHECKING:
    import torch


def polynomial_mmd(x: NDArray[Any] | torch.Tensor, y: NDArray[Any] | torch.Tensor, unbiased: bool = True) -> float:
    """Squared maximum mean discrepancy under the kernel (x . y / D + 1)^3 (Binkowski et al. 2018, "KID").

    Args:
        x: N x D features, any real dtype and range.
        y: M x D features of the same network.
        unbiased: leave each sample's kernel with itself out; the estimate may then be slightly negative.

    Raises:
        ValueError: unlike D, fewer than 2 rows, or a value that is not finite.
    """
    first, second = as_rows(x, "x"), as_rows(y, "y")
    if first.shape[1] != second.shape[1]:
        raise ValueError(
            f"features of {first.shape[1]} and {second.shape[1]} dimensions: use one network for both sets"
        )
    between = float(_kernel(first, second).mean())
    return _mean_within(first, unbiased) + _mean_within(second, unbiased) - 2.0 * between


def _kernel(x: FloatArray, y: FloatArray) -> FloatArray:
    base: FloatArray = x @ y.T / x.shape[1] + 1.0
    return base * base * base


def _mean_within(x: FloatArray, unbiased: bool) -> float:
    kernel = _kernel(x, x)
    if not unbiased:
        return float(kernel.mean())
    count = len(x)
    return float((kernel.sum() - np.trace(kernel)) / (count * (count - 1)))
