"""Scores of a clip from the features of its frames: formulas of VBench (arXiv 2311.17982) and VBench-I2V."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

# Weights of the closest frame to the image, of the mean and of the least likeness of neighbours.
CLOSEST, MEAN, LEAST = 0.4, 0.3, 0.3


def consistency(features: Tensor) -> float:
    """How alike frames T x D stay: the mean over frames from the second on of their likeness to the first and the last.

    Likeness is the cosine, 0 where it is negative; "last" is the frame before.
    """
    to_last = F.cosine_similarity(features[1:], features[:-1]).clamp(min=0)
    to_first = F.cosine_similarity(features[1:], features[:1]).clamp(min=0)
    return float(((to_last + to_first) / 2).double().mean())


def faithfulness(features: Tensor, image: Tensor) -> float:
    """How alike frames T x D are to the image 1 x D that they were made from, and to each other."""
    to_image = F.cosine_similarity(features, image).clamp(min=0).double()
    to_last = F.cosine_similarity(features[1:], features[:-1]).clamp(min=0).double()
    return float(CLOSEST * to_image.max() + MEAN * to_last.mean() + LEAST * to_last.min())
