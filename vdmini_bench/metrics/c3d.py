"""C3D fine-tuned on UCF101, the classifier of UCF101's Inception Score (Tran et al. 2015; TGANv2; StyleGAN-V).

The one file with a format that public sources show is StyleGAN-V's `c3d_ucf101.pt`: a TorchScript module that takes
B 3 16 H W uint8 RGB, does TGANv2's preprocessing itself (BGR, 112x112, the mean clip) and returns probabilities.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor, nn

from vdmini_bench.assets import AssetError, asset_path, verify_asset
from vdmini_bench.metrics.fvd import load_script

C3D = "c3d-ucf101"
FRAMES = 16
CLASSES = 101
COMMAND = f"vdmini-bench assets import {C3D} PATH"
TOLERANCE = 1e-3


class C3dUcf101(nn.Module):
    """StyleGAN-V's `c3d_ucf101.pt`: B 3 16 H W uint8 RGB to B x 101 probabilities.

    Raises:
        AssetError: the file is no TorchScript archive.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.script = load_script(C3D, path)

    def forward(self, video: Tensor) -> Tensor:
        """Classify clips.

        Raises:
            AssetError: what comes back is no probabilities over 101 classes: the file is another network.
        """
        try:
            found = self.script(video)
        except RuntimeError as error:
            reason = f"it cannot be called as StyleGAN-V's file is ({str(error).strip().splitlines()[-1]})"
            raise AssetError(C3D, reason, COMMAND) from error
        if not isinstance(found, Tensor) or tuple(found.shape) != (len(video), CLASSES):
            shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise AssetError(C3D, f"it gives {shape} where C3D has B x {CLASSES} probabilities", COMMAND)
        worst = float((found.sum(dim=1) - 1).abs().max())
        if not worst < TOLERANCE or float(found.min()) < 0:
            raise AssetError(C3D, "what it gives are no probabilities (they do not add up to 1)", COMMAND)
        return found


def load_c3d(cache: Path | None = None) -> C3dUcf101 | None:
    """The imported network in eval mode without gradients, or None when there is none.

    Raises:
        AssetError: it has changed since it was imported, or is another file.
    """
    path = asset_path(C3D, cache)
    if path is None:
        return None
    problem = verify_asset(C3D, cache)
    if problem is not None:
        raise AssetError(C3D, problem, COMMAND)
    network = C3dUcf101(path)
    network.eval().requires_grad_(False)
    return network


def clips_to_probabilities(clips: Iterable[Tensor], network: nn.Module) -> Tensor:
    """Turn clips B 16 3 H W uint8 RGB of any size into N x 101 float32 probabilities on the CPU, one clip at a time.

    Raises:
        ValueError: no clips, or clips of another length.
        AssetError: the network gives no probabilities.
    """
    rows = []
    with torch.inference_mode():
        for batch in clips:
            if batch.shape[1] != FRAMES:
                raise ValueError(f"clips of {batch.shape[1]} frames: C3D takes {FRAMES}")
            rows += [network(clip.transpose(1, 2).contiguous()).float().cpu() for clip in batch.split(1)]
    if not rows:
        raise ValueError("no clips: the iterable of batches is empty")
    return torch.cat(rows)
