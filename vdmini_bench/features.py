"""Clips to the features that all distribution metrics share: I3D logits and flow magnitudes, in one reading."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vdmini_bench.clips import ClipReader
from vdmini_bench.metrics.flow import flow_magnitudes
from vdmini_bench.metrics.fvd import clips_to_features, load_i3d
from vdmini_bench.progress import progress

# Fixed, so that no result depends on a setting: rounding differs between batch sizes.
CLIPS_PER_BATCH = 4


@dataclass(frozen=True)
class ClipFeatures:
    """`logits` N x 400 float32 from I3D before softmax; `flows` N x (T-1) x 2 float64 in pixels per frame."""

    logits: NDArray[np.float32]
    flows: NDArray[np.float64]


def clip_features(reader: ClipReader, label: str) -> ClipFeatures:
    """Read and score all clips, one batch in memory at a time.

    Raises:
        IncompleteError: some clips could not be read.
    """
    network = load_i3d().to("cuda" if torch.cuda.is_available() else "cpu")
    flows: list[NDArray[np.float64]] = []
    with progress(label, len(reader)) as advance:
        reader.on_clip = advance
        logits = clips_to_features(_batches(reader, flows), network)
    return ClipFeatures(logits.numpy(), np.stack(flows))


def _batches(reader: ClipReader, flows: list[NDArray[np.float64]]) -> Iterator[Tensor]:
    """Batches B T C H W uint8; appends each clip's flow magnitudes to `flows` on the way."""
    batch: list[NDArray[np.uint8]] = []
    for clip in reader:
        flows.append(flow_magnitudes(clip))
        batch.append(clip)
        if len(batch) == CLIPS_PER_BATCH:
            yield _to_tensor(batch)
            batch = []
    reader.check()
    if batch:
        yield _to_tensor(batch)


def _to_tensor(batch: list[NDArray[np.uint8]]) -> Tensor:
    return torch.from_numpy(np.stack(batch)).permute(0, 1, 4, 2, 3)
