"""The Frechet distance between two sets of features, each summed up by its mean and covariance."""

from __future__ import annotations

import math
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Moments:
    """The sample mean (D, float64) and covariance (D x D, float64) of `count` feature vectors.

    `ddof` is what the covariance was divided by, `count - ddof`: 1 in torch-fidelity, pytorch-fid and torchmetrics, 0
    in StyleGAN-V and cd-fvd. `spread` N x D has the covariance as its square, where fewer vectors than dimensions are
    at hand.
    """

    count: int
    mean: FloatArray
    covariance: FloatArray
    ddof: int = 1
    spread: FloatArray | None = None

    def __post_init__(self) -> None:
        dimension = self.mean.size
        if self.count < 2:
            raise ValueError(f"a covariance needs at least 2 feature vectors, got {self.count}: add clips")
        if self.ddof not in (0, 1):
            raise ValueError(f"ddof is {self.ddof}: use 1 (divide by N - 1) or 0 (divide by N)")
        if self.mean.ndim != 1 or self.covariance.shape != (dimension, dimension):
            raise ValueError(
                f"mean {self.mean.shape} and covariance {self.covariance.shape} do not fit: need (D,) and (D, D)"
            )
        if not (np.isfinite(self.mean).all() and np.isfinite(self.covariance).all()):
            raise ValueError("the mean or the covariance holds NaN or infinity: compute the features again")

    @classmethod
    def of(cls, features: NDArray[Any] | torch.Tensor, ddof: int = 1) -> Moments:
        """Sum up features: N x D, any real dtype and range.

        Raises:
            ValueError: not two-dimensional, fewer than 2 rows, or a value that is not finite.
        """
        rows = as_rows(features, "features")
        mean = rows.mean(axis=0)
        spread = (rows - mean) / math.sqrt(len(rows) - ddof)
        return cls(len(rows), mean, spread.T @ spread, ddof, spread if len(rows) < rows.shape[1] else None)

    def save(self, path: Path) -> None:
        """Write the moments to `path`, an `.npz` archive without pickles."""
        with path.open("wb") as file:
            np.savez(
                file,
                count=np.asarray(self.count),
                mean=self.mean,
                covariance=self.covariance,
                ddof=np.asarray(self.ddof),
            )

    @classmethod
    def load(cls, path: Path) -> Moments:
        """Read what `save` wrote.

        Raises:
            ValueError: the file is damaged, is of another kind, or holds pickled objects.
        """
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
                mean = np.asarray(archive["mean"], dtype=np.float64)
                covariance = np.asarray(archive["covariance"], dtype=np.float64)
                return cls(int(archive["count"]), mean, covariance, int(archive["ddof"]))
        except (zipfile.BadZipFile, EOFError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path}: no saved moments ({error}): delete it and compute it again") from error


def frechet_distance(x: NDArray[Any] | torch.Tensor, y: NDArray[Any] | torch.Tensor, ddof: int = 1) -> float:
    """Frechet distance between Gaussians fitted to two feature sets (Heusel et al. 2017; Unterthiner et al. 2018).

    Args:
        x: N x D features, any real dtype and range.
        y: M x D features of the same network. The estimate is biased upwards by small N and M: compare like with like.
        ddof: the covariance divides by N - ddof.

    Raises:
        ValueError: unlike D, fewer than 2 rows, or a value that is not finite.
    """
    return frechet_distance_of_moments(Moments.of(x, ddof), Moments.of(y, ddof))


def frechet_distance_of_moments(a: Moments, b: Moments) -> float:
    """Frechet distance |m1 - m2|^2 + Tr(S1 + S2 - 2 (S1 S2)^(1/2)), in float64, never negative.

    Raises:
        ValueError: the moments have unlike D or unlike `ddof`.
    """
    if a.mean.size != b.mean.size:
        raise ValueError(f"features of {a.mean.size} and {b.mean.size} dimensions: use one network for both sets")
    if a.ddof != b.ddof:
        raise ValueError(f"covariances with ddof {a.ddof} and {b.ddof} are not comparable: compute both with one")
    # S1 S2 and the symmetric R S2 R^T, where S1 = R^T R, have the same eigenvalues but for zeros; the second needs no
    # complex square root, and where R has few rows it is small.
    root, other = (b.spread, a) if b.spread is not None else (a.spread, b)
    if root is None:
        values, vectors = np.linalg.eigh(a.covariance)
        root = (vectors * np.sqrt(values.clip(min=0.0))) @ vectors.T
    cross = np.linalg.eigvalsh(root @ other.covariance @ root.T)
    offset = a.mean - b.mean
    distance = offset @ offset + np.trace(a.covariance) + np.trace(b.covariance)
    distance -= 2.0 * np.sqrt(cross.clip(min=0.0)).sum()
    return max(float(distance), 0.0)


def as_rows(features: NDArray[Any] | torch.Tensor, name: str, at_least: int = 2) -> FloatArray:
    """Convert features of either library to a checked N x D float64 array.

    Raises:
        ValueError: `name` is not two-dimensional, has fewer than `at_least` rows or no column, or is not finite.
    """
    rows = np.asarray(
        features if isinstance(features, np.ndarray) else features.detach().double().cpu().numpy(), dtype=np.float64
    )
    if rows.ndim != 2 or rows.shape[1] == 0:
        raise ValueError(f"{name} has shape {rows.shape}: it must be N x D, one row a sample")
    if len(rows) < at_least:
        raise ValueError(f"{name} has {len(rows)} rows: at least {at_least} are needed")
    bad = int((~np.isfinite(rows)).any(axis=1).sum())
    if bad:
        raise ValueError(f"{name} holds NaN or infinity in {bad} of {len(rows)} rows: look at the clips behind them")
    return rows
