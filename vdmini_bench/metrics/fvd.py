"""Clips to I3D features, for the Frechet video distance (Unterthiner et al. 2018).

The features are the 400 logits before softmax. The distance itself is `frechet.frechet_distance`; StyleGAN-V and cd-fvd
divide the covariance by N (`ddof=0`).
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from vdmini_bench.assets import AssetError, asset_path, fetch_asset, verify_asset
from vdmini_bench.metrics.i3d import FEWEST_FRAMES, SIZE, InceptionI3d

FVD_VERSION = "i3d-kinetics400-logits-1"


class TorchScriptI3d(nn.Module):
    """StyleGAN-V's `i3d_torchscript.pt` behind the interface of `InceptionI3d`."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.script = torch.jit.load(str(path), map_location="cpu")

    def forward(self, video: Tensor) -> Tensor:
        """Map B 3 T 224 224 float32 RGB in [-1, 1], T >= 9, to B x 400 float32 logits."""
        features: Tensor = self.script(video, rescale=False, resize=False, return_features=True)
        return features


def load_i3d(cache: Path | None = None) -> nn.Module:
    """Load the network of FVD: B 3 T 224 224 float32 RGB in [-1, 1], T >= 9, to B x 400 float32 logits.

    The weights are fetched on first use. A TorchScript file the user imported is taken instead: the same network. It is
    in eval mode, its parameters take no gradient, and it is laid out for `channels_last_3d`.

    Raises:
        AssetError: the weights cannot be fetched, or have changed since they were stored.
    """
    script = asset_path("i3d-torchscript", cache)
    network: nn.Module
    if script is not None:
        problem = verify_asset("i3d-torchscript", cache)
        if problem is not None:
            raise AssetError("i3d-torchscript", problem, "vdmini-bench assets import i3d-torchscript PATH")
        network = TorchScriptI3d(script)
    else:
        from safetensors.torch import load_file

        network = InceptionI3d()
        network.load_state_dict(load_file(fetch_asset("i3d-kinetics400", cache)))
    network.eval().requires_grad_(False)
    return network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]


def clips_to_features(clips: Iterable[Tensor], network: nn.Module) -> Tensor:
    """Turn batches of clips into features, one row a clip in the order given.

    Args:
        clips: batches B T C H W uint8 RGB, T >= 9, any size: frames are resized to 224x224, bilinear, with antialiasing
            when they shrink. Batches are used one at a time and need not be held together.
        network: B C T H W float32 in [-1, 1] at 224x224 to B x D, as `load_i3d` gives; runs where its parameters are.

    Returns:
        N x D float32 on the CPU; the size of the batches does not matter beyond rounding.

    Raises:
        ValueError: no clips, or a batch of another layout or dtype, or of fewer than 9 frames.
    """
    parameter = next(network.parameters(), None)
    device = torch.device("cpu") if parameter is None else parameter.device
    # TF32 keeps 10 bits of each factor, and only on some cards: the same clips must give the same features on all.
    exact = torch.backends.cudnn.flags(enabled=True, benchmark=torch.backends.cudnn.benchmark, allow_tf32=False)
    with torch.inference_mode(), exact:
        rows = [network(_prepare(batch, device)).float().cpu() for batch in clips]
    if not rows:
        raise ValueError("no clips: the iterable of batches is empty")
    return torch.cat(rows)


def _prepare(batch: Tensor, device: torch.device) -> Tensor:
    """Bring B T C H W uint8 to B C T 224 224 float32 in [-1, 1]."""
    if batch.ndim != 5 or batch.shape[2] != 3 or batch.dtype != torch.uint8:
        raise ValueError(f"a batch is {batch.dtype} of shape {tuple(batch.shape)}: it must be uint8 B T 3 H W")
    if batch.shape[1] < FEWEST_FRAMES:
        raise ValueError(f"clips of {batch.shape[1]} frames: I3D needs at least {FEWEST_FRAMES}, use longer clips")
    frames = batch.to(device).flatten(0, 1).float()
    if tuple(frames.shape[2:]) != (SIZE, SIZE):
        # PyTorch's antialias widens the filter only where the picture shrinks, so it may stay on.
        frames = functional.interpolate(frames, size=(SIZE, SIZE), mode="bilinear", align_corners=False, antialias=True)
    video = frames.reshape(*batch.shape[:3], SIZE, SIZE).transpose(1, 2)
    return (video / 127.5 - 1.0).contiguous(memory_format=torch.channels_last_3d)
