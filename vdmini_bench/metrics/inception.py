"""The Inception Score: are single samples recognisable, and the samples together varied?"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax, logsumexp

from vdmini_bench.metrics.frechet import FloatArray, as_rows

if TYPE_CHECKING:
    import torch


def inception_score(logits: NDArray[Any] | torch.Tensor, splits: int) -> tuple[float, float]:
    """Mean and population standard deviation over splits of exp(E KL(p(y|x) || p(y))) (Salimans et al. 2016).

    The splits are consecutive and as equal as they can be, so the order of the samples matters when `splits` > 1.
    Scores with unlike classifiers, sample counts or splits are not comparable.

    Args:
        logits: N x K class scores before softmax, any real dtype and range.
        splits: 1 (TGANv2) or 10 (StyleGAN-V) on UCF101.

    Raises:
        ValueError: `splits` is not in 1..N, `logits` is not N x K, or holds a value that is not finite.
    """
    scores = [_score(part) for part in _parts(as_rows(logits, "logits", at_least=1), splits)]
    return float(np.mean(scores)), float(np.std(scores))


def inception_score_tgan_v2(probabilities: NDArray[Any] | torch.Tensor) -> float:
    """TGANv2's score of one set of samples (Saito et al. 2020): one split, 1e-20 added to every probability.

    The published number is the mean over 10 sets of 2048. Raises ValueError as `inception_score` does.
    """
    rows = as_rows(probabilities, "probabilities", at_least=1) + 1e-20
    return _published(rows)


def inception_score_stylegan_v(probabilities: NDArray[Any] | torch.Tensor, splits: int = 10) -> tuple[float, float]:
    """StyleGAN-V's score (Skorokhodov et al. 2022): samples shuffled by seed 42, `splits` parts, nothing added.

    Mean and population standard deviation over the parts, for N x K probabilities; the published number has N = 2048.
    They are NaN when a probability is 0, as in the original.

    Raises:
        ValueError: `splits` is not in 1..N, or the probabilities are not N x K and finite.
    """
    rows = as_rows(probabilities, "probabilities", at_least=1).copy()
    # The legacy generator, since its order is part of the number.
    np.random.RandomState(42).shuffle(rows)
    scores = [_published(part) for part in _parts(rows, splits)]
    return float(np.mean(scores)), float(np.std(scores))


def _parts(rows: FloatArray, splits: int) -> list[FloatArray]:
    if not 1 <= splits <= len(rows):
        raise ValueError(f"splits is {splits}: it must lie in 1..{len(rows)}, the number of samples")
    bounds = [number * len(rows) // splits for number in range(splits + 1)]
    return [rows[start:end] for start, end in pairwise(bounds)]


def _published(rows: FloatArray) -> float:
    with np.errstate(divide="ignore", invalid="ignore"):
        divergence = (rows * (np.log(rows) - np.log(rows.mean(axis=0, keepdims=True)))).sum(axis=1)
    return float(np.exp(divergence.mean()))


def _score(logits: FloatArray) -> float:
    # A probability that underflows to 0 keeps a finite logarithm here, so 0 * log 0 is 0 and never NaN.
    log_each = log_softmax(logits, axis=1)
    log_marginal = logsumexp(log_each, axis=0) - np.log(len(logits))
    return float(np.exp((np.exp(log_each) * (log_each - log_marginal)).sum(axis=1).mean()))
