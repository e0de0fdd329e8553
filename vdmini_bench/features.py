"""Clips to the features that distribution metrics share: I3D logits, flow magnitudes, C3D classes, in one reading."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file
from torch import Tensor, nn

from vdmini_bench.clips import ClipReader
from vdmini_bench.metrics.c3d import clips_to_probabilities
from vdmini_bench.metrics.fvd import NetworkResize, clips_to_features, fvd_version, load_i3d
from vdmini_bench.progress import progress

FEATURES = "features.safetensors"


@dataclass(frozen=True)
class ClipFeatures:
    """`logits` N x 400 float32 from I3D before softmax; `flows` N x (T-1) x 2 float64 in pixels per frame.

    `probabilities` N x 101 float32 from C3D, where there is that network. `version` is the FVD's, of I3D's weight file.
    """

    logits: NDArray[np.float32]
    flows: NDArray[np.float64]
    version: str
    probabilities: NDArray[np.float32] | None = None

    def save(self, folder: Path) -> None:
        """Write the arrays into a job's folder."""
        arrays = {"logits": self.logits, "flows": self.flows}
        if self.probabilities is not None:
            arrays["probabilities"] = self.probabilities
        save_file(arrays, folder / FEATURES, metadata={"version": self.version})


def load_logits(folder: Path) -> NDArray[np.float32] | None:
    """The I3D logits that `ClipFeatures.save` left in a job's folder, or None when there are none."""
    path = folder / FEATURES
    return load_file(path)["logits"] if path.is_file() else None


def clip_features(
    reader: ClipReader,
    label: str,
    network_resize: NetworkResize = "antialiased",
    c3d: nn.Module | None = None,
    packaged: bool = False,
) -> ClipFeatures:
    """Read and score all clips, a few in memory at a time; a clip's features depend on that clip alone.

    With `packaged`, I3D has the package's weights even where a TorchScript file was imported.

    Raises:
        IncompleteError: some clips could not be read.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    network: nn.Module = load_i3d(packaged=packaged).to(device)
    if c3d is not None:
        c3d = c3d.to(device)
    flows: list[NDArray[np.float64]] = []
    probabilities: list[Tensor] = []

    def clips() -> Iterator[Tensor]:
        for clip, flow in reader.with_flows():
            flows.append(flow)
            # B T C H W uint8 with B = 1.
            batch = torch.from_numpy(clip).permute(0, 3, 1, 2)[None]
            if c3d is not None:
                probabilities.append(clips_to_probabilities([batch.to(device)], c3d))
            yield batch
        reader.check()

    with progress(label, len(reader)) as advance:
        reader.on_clip = advance
        logits = clips_to_features(clips(), network, network_resize)
    classes = torch.cat(probabilities).numpy() if probabilities else None
    return ClipFeatures(logits.numpy(), np.stack(flows), fvd_version(network), classes)
