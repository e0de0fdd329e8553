"""Clips to I3D features, for the Frechet video distance (Unterthiner et al. 2018).

The features are the 400 logits before softmax, or those of `videomae` where a protocol says so. The distance itself is
`frechet.frechet_distance`; StyleGAN-V and cd-fvd divide the covariance by N (`ddof=0`).
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from vdmini_bench.assets.cache import fetch_asset
from vdmini_bench.config.protocols import FeatureNetwork
from vdmini_bench.metrics.i3d import FEWEST_FRAMES, SIZE, InceptionI3d
from vdmini_bench.metrics.videomae import VIDEOMAE_VERSION

FVD_VERSION = "i3d-kinetics400-logits-1"
# By network: scores of unlike networks or weight files are not compared.
FVD_VERSIONS: dict[FeatureNetwork, str] = {
    "i3d-kinetics400": FVD_VERSION,
    # Another file, whose weights nobody here has seen.
    "i3d-torchscript": "i3d-torchscript-logits-2",
    "videomae-ssv2": VIDEOMAE_VERSION,
}

NetworkResize = Literal["antialiased", "plain"]


def load_i3d(cache: Path | None = None, asset: FeatureNetwork = "i3d-kinetics400") -> InceptionI3d:
    """Load the network of FVD: B 3 T 224 224 float32 RGB in [-1, 1], T >= 9, to B x 400 float32 logits.

    The weights are the asset's: `i3d-kinetics400`, fetched on first use, or `i3d-torchscript`, which the user imports;
    batch norms are folded. It is in eval mode, its parameters take no gradient, and it is laid out for
    `channels_last_3d`.

    Raises:
        AssetError: the weights cannot be fetched or were not imported, or have changed since they were stored.
    """
    from safetensors.torch import load_file

    network = InceptionI3d()
    if asset == "i3d-torchscript":
        # Stored folded.
        network.fold_norms()
    network.load_state_dict(load_file(fetch_asset(asset, cache)))
    network.fold_norms()
    network.eval().requires_grad_(False)
    return network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]


def clips_to_features(
    clips: Iterable[Tensor], network: nn.Module, network_resize: NetworkResize = "antialiased"
) -> Tensor:
    """Turn batches of clips into features, one row a clip in the order given.

    Each clip goes through the network alone, since rounding depends on what shares its batch: a clip has the same
    features in whatever batch, process or share of the clips it comes.

    Args:
        clips: batches B T C H W uint8 RGB, T >= 9, any size: frames are resized to 224x224, bilinear. Batches are used
            one at a time and need not be held together.
        network: B C T H W float32 in [-1, 1] at 224x224 to B x D, as `load_i3d` and `load_videomae` give; it
            runs where its parameters are.
        network_resize: "antialiased" where frames shrink, or "plain" as in StyleGAN-V and cd-fvd.

    Returns:
        N x D float32 on the CPU, the same to the last bit for all batch sizes.

    Raises:
        ValueError: no clips, or a batch of another layout or dtype, or of fewer than 9 frames.
    """
    parameter = next(network.parameters(), None)
    device = torch.device("cpu") if parameter is None else parameter.device
    # TF32 keeps 10 bits of each factor, and only on some cards: the same clips must give the same features on all.
    exact = torch.backends.cudnn.flags(enabled=True, benchmark=torch.backends.cudnn.benchmark, allow_tf32=False)
    rows = (
        network(prepare_clips(clip, device, network_resize)).float().cpu().numpy()[0]
        for batch in clips
        for clip in _single(batch)
    )
    with torch.inference_mode(), exact:
        first = next(rows, None)
        if first is None:
            raise ValueError("no clips: the iterable of batches is empty")
        # One block that grows: rows kept one by one between the large buffers of a network would cut the space those
        # leave into pieces that no later buffer fits in; 2,000 clips have cost ten times the memory of 200.
        features = np.fromiter(chain([first], rows), np.dtype((np.float32, first.shape)))
    return torch.from_numpy(features)


def _single(batch: Tensor) -> Iterable[Tensor]:
    """The clips of a batch, each a batch of its own; what is no batch of clips is refused first."""
    if batch.ndim != 5 or batch.shape[2] != 3 or batch.dtype != torch.uint8:
        raise ValueError(f"a batch is {batch.dtype} of shape {tuple(batch.shape)}: it must be uint8 B T 3 H W")
    if batch.shape[1] < FEWEST_FRAMES:
        raise ValueError(f"clips of {batch.shape[1]} frames: I3D needs at least {FEWEST_FRAMES}, use longer clips")
    return batch.split(1)


def prepare_clips(batch: Tensor, device: torch.device, network_resize: NetworkResize = "antialiased") -> Tensor:
    """Bring B T C H W uint8 to B C T 224 224 float32 in [-1, 1]."""
    frames = batch.to(device).flatten(0, 1).float()
    if tuple(frames.shape[2:]) != (SIZE, SIZE):
        # PyTorch's antialias widens the filter only where the picture shrinks, so it may stay on.
        antialias = network_resize == "antialiased"
        frames = functional.interpolate(
            frames, size=(SIZE, SIZE), mode="bilinear", align_corners=False, antialias=antialias
        )
    video = frames.reshape(*batch.shape[:3], SIZE, SIZE).transpose(1, 2)
    return (video / 127.5 - 1.0).contiguous(memory_format=torch.channels_last_3d)
