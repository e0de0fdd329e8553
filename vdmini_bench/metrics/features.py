"""Clips to the features that distribution metrics share: embeddings, flow magnitudes, C3D classes, in one reading."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file
from torch import Tensor

from vdmini.finite import check_rows
from vdmini_bench.assets.videomae_checkpoint import VIDEOMAE
from vdmini_bench.config.protocols import FeatureNetwork
from vdmini_bench.data.clip_reader import ClipReader
from vdmini_bench.metrics.c3d import CLASSES, clip_to_probabilities, load_c3d
from vdmini_bench.metrics.flow import flow_magnitudes
from vdmini_bench.metrics.fvd import NetworkResize, clips_to_features, load_i3d
from vdmini_bench.metrics.videomae import load_videomae
from vdmini_bench.system.launch import Share, in_order_again, process_device, share_out

FEATURES = "features.safetensors"


@dataclass(frozen=True)
class Measured:
    """What one reading of clips measures: a network's embeddings, C3D's `classes` where it was imported, `flows`."""

    network: FeatureNetwork = "i3d-kinetics400"
    network_resize: NetworkResize = "antialiased"
    classes: bool = False
    flows: bool = True


@dataclass(frozen=True)
class ClipFeatures:
    """`embeddings` N x D float32 of the protocol's network; `flows` N x (T-1) x 2 float64, pixels a frame, if measured.

    Of I3D the embeddings are the 400 logits before softmax, of VideoMAE 1408 features. `probabilities` N x 101 float32
    from C3D, where there is that network.
    """

    embeddings: NDArray[np.float32]
    flows: NDArray[np.float64] | None = None
    probabilities: NDArray[np.float32] | None = None

    @property
    def arrays(self) -> dict[str, NDArray[Any]]:
        """What was measured, by name."""
        return {name: array for name, array in vars(self).items() if array is not None}

    def save(self, folder: Path) -> None:
        """Write the arrays into a job's folder."""
        save_file(self.arrays, folder / FEATURES)


def load_embeddings(folder: Path) -> NDArray[np.float32] | None:
    """The embeddings that `ClipFeatures.save` left in a job's folder, or None when there are none."""
    path = folder / FEATURES
    return load_file(path)["embeddings"] if path.is_file() else None


def clip_features(reader: ClipReader, label: str, measured: Measured) -> ClipFeatures:
    """Read and score all clips, a few in memory at a time; a clip's features depend on that clip alone.

    The processes of a launch each take a share of the clips.

    Raises:
        IncompleteError: some clips could not be read.
        NotFiniteError: features of a clip, which is named, are not finite.
    """
    parts = share_out(_share_of_features, reader, label, measured)
    arrays = [part.arrays for part in parts if part is not None]
    return ClipFeatures(**{name: in_order_again([part[name] for part in arrays]) for name in arrays[0]})


def _share_of_features(share: Share, reader: ClipReader, label: str, measured: Measured) -> ClipFeatures | None:
    """The features of one process's clips, None where there are more processes than clips."""
    own = replace(reader, paths=share.of(reader.paths), problems=[])
    count = len(own.paths)
    if not count:
        return None
    of_videomae = measured.network == VIDEOMAE
    network = (load_videomae() if of_videomae else load_i3d(asset=measured.network)).to(process_device())
    c3d = load_c3d() if measured.classes else None
    flows = np.empty((count, own.frames - 1, 2)) if measured.flows else None
    probabilities = None
    if c3d is not None:
        c3d, probabilities = c3d.to(process_device()), np.empty((count, CLASSES), np.float32)

    def clips() -> Iterator[Tensor]:
        read = own.with_measure(flow_magnitudes) if flows is not None else ((clip, None) for clip in own)
        for number, (clip, magnitudes) in enumerate(read):
            if flows is not None:
                flows[number] = magnitudes
            # B T C H W uint8 with B = 1.
            batch = torch.from_numpy(clip).permute(0, 3, 1, 2)[None]
            if c3d is not None and probabilities is not None:
                probabilities[number] = clip_to_probabilities(batch[0].to(process_device()), c3d).numpy()
            yield batch
        own.check()

    with share.progress(label, len(own)) as advance:
        own.on_clip = advance
        embeddings = clips_to_features(clips(), network, measured.network_resize)
    found = ClipFeatures(embeddings.numpy(), flows, probabilities)
    names = [str(path) for path in own.paths]
    whats = {"embeddings": f"features by {measured.network}", "flows": "motion", "probabilities": "classes by C3D"}
    for name, rows in found.arrays.items():
        check_rows(rows, names, whats[name])
    return found
