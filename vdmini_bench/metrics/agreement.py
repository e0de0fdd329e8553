"""How far two weight files of I3D are apart, and how much of that is the network and how much the resizing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from vdmini_bench.datasets.synthetic import ACTIONS, draw_clip
from vdmini_bench.metrics.fvd import TorchScriptI3d, load_packaged_i3d, prepare_clips
from vdmini_bench.preprocessing import resize_clip

# Float32 in another order of summing; beyond it the weights, the padding or the batch-norm epsilon are others.
ROUNDING = 1e-2


@dataclass(frozen=True)
class Agreement:
    """Largest differences between the logits of a TorchScript I3D and of the packaged one, on the same clips.

    `network`: both get the same 224x224 input. `resizing`: the script gets uint8 frames of 256x256 and resizes them
    itself, as in StyleGAN-V; the packaged one gets ours without antialiasing. `antialiasing`: the same, with it.
    """

    network: float
    resizing: float
    antialiasing: float

    def __str__(self) -> str:
        network = (
            "they agree but for rounding"
            if self.network <= ROUNDING
            else "beyond rounding: its weights, padding or batch-norm epsilon are others"
        )
        return (
            f"logits differ by up to {self.network:.2g} on the same input ({network}), by {self.resizing:.2g} when it"
            f" resizes 256x256 frames itself, and by {self.antialiasing:.2g} against antialiased frames;"
            " scores of the two are kept apart by their metric version"
        )


def script_agreement(script: Path, cache: Path | None = None) -> Agreement:
    """Compare an `i3d_torchscript.pt` with the packaged weights on a few drawn clips.

    Raises:
        AssetError: the script is no such file, or the packaged weights cannot be fetched.
    """
    return measure_agreement(TorchScriptI3d(script), load_packaged_i3d(cache), probe_clips())


def measure_agreement(script: TorchScriptI3d, packaged: nn.Module, clips: Tensor) -> Agreement:
    """Compare two networks on clips B T C H W uint8 RGB of any size that is not 224x224."""
    cpu = torch.device("cpu")
    plain, smooth = prepare_clips(clips, cpu, "plain"), prepare_clips(clips, cpu, "antialiased")
    with torch.inference_mode():
        ours = packaged(plain)
        theirs: Tensor = script.script(clips.transpose(1, 2), rescale=True, resize=True, return_features=True)
        return Agreement(
            network=_largest(script(plain), ours),
            resizing=_largest(theirs, ours),
            antialiasing=_largest(theirs, packaged(smooth)),
        )


def probe_clips(count: int = 2) -> Tensor:
    """Drawn clips B T C H W uint8 RGB of 256x256."""
    clips = [resize_clip(draw_clip(action, 1, 1).frames, 256, 256) for action in tuple(ACTIONS)[:count]]
    return torch.from_numpy(np.stack(clips)).permute(0, 1, 4, 2, 3)


def _largest(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max())
