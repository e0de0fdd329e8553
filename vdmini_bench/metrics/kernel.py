"""The kernel distance between two sets of features: less biased by small samples than the Frechet distance."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

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
    between = sum(float(_kernel(rows, second).sum()) for rows in _chunks(first)) / (len(first) * len(second))
    return _mean_within(first, unbiased) + _mean_within(second, unbiased) - 2.0 * between


def _kernel(x: FloatArray, y: FloatArray) -> FloatArray:
    base: FloatArray = x @ y.T / x.shape[1] + 1.0
    return base * base * base


def _mean_within(x: FloatArray, unbiased: bool) -> float:
    count = len(x)
    total = sum(float(_kernel(rows, x).sum()) for rows in _chunks(x))
    if not unbiased:
        return total / count**2
    of_itself = (x * x).sum(axis=1) / x.shape[1] + 1.0
    return float((total - (of_itself**3).sum()) / (count * (count - 1)))


def _chunks(x: FloatArray) -> list[FloatArray]:
    # All of a kernel between 13,320 clips would take 1.4 GB.
    return [x[start : start + ROWS_AT_ONCE] for start in range(0, len(x), ROWS_AT_ONCE)]
