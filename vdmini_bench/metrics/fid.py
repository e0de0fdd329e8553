"""Frechet distance between sets of single frames: how pictures look, blind to how they move."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor, nn

from vdmini.finite import NotFiniteError, is_finite
from vdmini_bench.assets.cache import asset_path, fetch_asset
from vdmini_bench.assets.catalogue import ASSETS
from vdmini_bench.errors import AssetError
from vdmini_bench.metrics.frechet import Moments

# 2: the real side is the reference clips in runs too; 1 had the clips there that gave the first frames. Of the name
# only the number is left of torchmetrics, whose distance takes half a minute in 2048 dimensions.
FID_VERSION = "torchmetrics-2"
WEIGHTS = "pytorch-fid-inception"


class FidInception(nn.Module):
    """pytorch-fid's Inception-v3: N 3 H W uint8 RGB to N x 2048 float32."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, frames: Tensor) -> Tensor:
        """Map N 3 H W uint8 RGB, any size, to N x 2048 float32; the network resizes to 299x299 itself."""
        pooled: Tensor = self.network(frames.float() / 255.0)[0]
        return pooled.flatten(1)


def frame_moments(batches: Iterable[Tensor], features: nn.Module, kind: str) -> Moments:
    """The moments of frames' features, the covariance divided by N - 1, for a Frechet inception distance.

    Args:
        batches: N 3 H W uint8 RGB, one clip each.
        features: N 3 H W uint8 to N x D float; it runs where its parameters are. Distances with unlike networks are
            not comparable.
        kind: what the frames are, in errors.

    Raises:
        ValueError: a batch has another layout or dtype, or there are under 2 frames.
        NotFiniteError: features of a batch, named by its number from 1, are not finite.
    """
    parameter = next(features.parameters(), None)
    device = torch.device("cpu") if parameter is None else parameter.device
    rows = []
    with torch.inference_mode():
        for number, batch in enumerate(batches, start=1):
            if batch.ndim != 4 or batch.shape[1] != 3 or batch.dtype != torch.uint8:
                raise ValueError(f"a batch is {batch.dtype} of shape {tuple(batch.shape)}: it must be uint8 N 3 H W")
            rows.append(features(batch.to(device)).cpu())
            if not is_finite(rows[-1]):
                raise NotFiniteError(f"features by Inception of frames of {kind} clip {number} are not finite")
    if sum(map(len, rows)) < 2:
        raise ValueError(f"{sum(map(len, rows))} {kind} frames: at least 2 are needed")
    return Moments.of(torch.cat(rows))


def why_no_inception(cache: Path | None = None) -> str | None:
    """Why frame FID cannot be had, with what to do about it, or None where its package and weights are here."""
    try:
        _network_type()
    except AssetError as error:
        return str(error)
    if asset_path(WEIGHTS, cache) is None and not _hub_weights().is_file():
        return f"no Inception network: {ASSETS[WEIGHTS].command}"
    return None


def load_inception_features(cache: Path | None = None) -> FidInception:
    """Load pytorch-fid's Inception-v3 from weights already on this machine, in eval mode; nothing is downloaded.

    Raises:
        AssetError: the package or the weights are missing, or the imported weights have changed.
    """
    network_type = _network_type()
    hub = Path(torch.hub.get_dir())
    if asset_path(WEIGHTS, cache) is None and _hub_weights().is_file():
        folder = hub
    else:
        folder = fetch_asset(WEIGHTS, cache).parent.parent
    # pytorch-fid has no argument for the file: it asks torch.hub, which looks in its folder before it downloads.
    torch.hub.set_dir(str(folder))
    try:
        network = network_type()
    finally:
        torch.hub.set_dir(str(hub))
    return FidInception(network).eval().requires_grad_(False)


def _network_type() -> type[nn.Module]:
    try:
        from pytorch_fid.inception import InceptionV3
    except ImportError as error:
        raise AssetError(WEIGHTS, f"FID needs the package pytorch-fid ({error})", "pip install pytorch-fid") from error
    except RuntimeError as error:
        reason = f"torchvision, which pytorch-fid needs, does not fit this torch ({error})"
        raise AssetError(WEIGHTS, reason, "pip install torchvision --index-url THE_INDEX_OF_YOUR_TORCH") from error
    network_type: type[nn.Module] = InceptionV3
    return network_type


def _hub_weights() -> Path:
    return Path(torch.hub.get_dir()) / ASSETS[WEIGHTS].file_name
