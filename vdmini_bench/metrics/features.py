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
from vdmini_bench.metrics.c3d import clips_to_probabilities, load_c3d
from vdmini_bench.metrics.flow import flow_magnitudes
from vdmini_bench.metrics.fvd import NetworkResize, clips_to_features, fvd_version, load_i3d
from vdmini_bench.metrics.growing import GrowingRows
from vdmini_bench.metrics.videomae import load_videomae
from vdmini_bench.system.launch import Share, in_order_again, process_device, share_out

FEATURES = "features.safetensors"


@dataclass(frozen=True)
class ClipFeatures:
    """`embeddings` N x D float32 of the protocol's network; `flows` N x (T-1) x 2 float64, pixels a frame, if measured.

    Of I3D the embeddings are the 400 logits before softmax, of VideoMAE 1408 features. `probabilities` N x 101 float32
    from C3D, where there is that network. `version` is the FVD's, of the network and its weight file.
    """

    embeddings: NDArray[np.float32]
    flows: NDArray[np.float64] | None
    version: str
    probabilities: NDArray[np.float32] | None = None

    def save(self, folder: Path) -> None:
        """Write the arrays into a job's folder."""
        arrays: dict[str, NDArray[Any] | None] = {
            "embeddings": self.embeddings,
            "flows": self.flows,
            "probabilities": self.probabilities,
        }
        there = {name: array for name, array in arrays.items() if array is not None}
        save_file(there, folder / FEATURES, metadata={"version": self.version})


def load_embeddings(folder: Path) -> NDArray[np.float32] | None:
    """The embeddings that `ClipFeatures.save` left in a job's folder, or None when there are none."""
    path = folder / FEATURES
    return load_file(path)["embeddings"] if path.is_file() else None


def clip_features(
    reader: ClipReader,
    label: str,
    network_resize: NetworkResize = "antialiased",
    classify: bool = False,
    packaged: bool = False,
    network: FeatureNetwork = "i3d-kinetics400",
    flow: bool = True,
) -> ClipFeatures:
    """Read and score all clips, a few in memory at a time; a clip's features depend on that clip alone.

    The processes of a launch each take a share of the clips. With `classify` the imported C3D sees them too; with
    `packaged` I3D, where it is the network, has the package's weights even where a TorchScript file was imported;
    without `flow` there are no `flows`.

    Raises:
        IncompleteError: some clips could not be read.
        NotFiniteError: features of a clip, which is named, are not finite.
    """
    parts = share_out(_share_of_features, reader, label, network_resize, classify, packaged, network, flow)
    some = [part for part in parts if part is not None]
    flows = [part.flows for part in some if part.flows is not None]
    probabilities = [part.probabilities for part in some if part.probabilities is not None]
    return ClipFeatures(
        in_order_again([part.embeddings for part in some]),
        in_order_again(flows) if flows else None,
        some[0].version,
        in_order_again(probabilities) if probabilities else None,
    )


def _share_of_features(
    share: Share,
    reader: ClipReader,
    label: str,
    network_resize: NetworkResize,
    classify: bool,
    packaged: bool,
    network_name: FeatureNetwork,
    flow: bool,
) -> ClipFeatures | None:
    """The features of one process's clips, None where there are more processes than clips."""
    own = replace(reader, paths=share.of(reader.paths), problems=[])
    if not own.paths:
        return None
    loaded = load_videomae() if network_name == VIDEOMAE else load_i3d(packaged=packaged)
    network = loaded.to(process_device())
    c3d = load_c3d() if classify else None
    if c3d is not None:
        c3d = c3d.to(process_device())
    flows, probabilities = GrowingRows(), GrowingRows()

    def clips() -> Iterator[Tensor]:
        for clip, magnitudes in own.with_measure(flow_magnitudes) if flow else ((clip, None) for clip in own):
            if magnitudes is not None:
                flows.add(magnitudes)
            # B T C H W uint8 with B = 1.
            batch = torch.from_numpy(clip).permute(0, 3, 1, 2)[None]
            if c3d is not None:
                probabilities.add(clips_to_probabilities([batch.to(process_device())], c3d)[0].numpy())
            yield batch
        own.check()

    with share.progress(label, len(own)) as advance:
        own.on_clip = advance
        embeddings = clips_to_features(clips(), network, network_resize)
    found = ClipFeatures(
        embeddings.numpy(),
        flows.array() if flow else None,
        fvd_version(network),
        probabilities.array() if c3d is not None else None,
    )
    names = [str(path) for path in own.paths]
    for rows, what in (
        (found.embeddings, f"features by {network_name}"),
        (found.flows, "motion"),
        (found.probabilities, "classes by C3D"),
    ):
        if rows is not None:
            check_rows(rows, names, what)
    return found
