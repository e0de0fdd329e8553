"""How far two weight files of I3D are apart, and how much the resizing of frames adds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from vdmini_bench.data.preprocessing import resize_clip
from vdmini_bench.data.synthetic import ACTIONS, draw_clip
from vdmini_bench.metrics.fvd import load_i3d, prepare_clips

# Float32 in another order of summing; beyond it the weights, the padding or the batch-norm epsilon are others.
ROUNDING = 1e-2


@dataclass(frozen=True)
class Agreement:
    """Largest differences between the logits of an imported I3D and of the packaged one, on the same clips.

    `network`: both get the same 224x224 input. `antialiasing`: the packaged one gets frames that were resized with it.
    """

    network: float
    antialiasing: float

    def __str__(self) -> str:
        network = (
            "they agree but for rounding"
            if self.network <= ROUNDING
            else "beyond rounding: its weights, padding or batch-norm epsilon are others"
        )
        return (
            f"logits differ by up to {self.network:.2g} on the same input ({network}), and by {self.antialiasing:.2g}"
            " against antialiased frames; scores of the two are kept apart by their metric version"
        )


def imported_agreement(cache: Path | None = None) -> Agreement:
    """Compare the imported I3D with the packaged weights on a few drawn clips.

    Raises:
        AssetError: the imported one has changed, or the packaged weights cannot be fetched.
    """
    return measure_agreement(load_i3d(cache, "i3d-torchscript"), load_i3d(cache), probe_clips())


def measure_agreement(imported: nn.Module, packaged: nn.Module, clips: Tensor) -> Agreement:
    """Compare two networks on clips B T C H W uint8 RGB of any size that is not 224x224."""
    cpu = torch.device("cpu")
    plain, smooth = prepare_clips(clips, cpu, "plain"), prepare_clips(clips, cpu, "antialiased")
    with torch.inference_mode():
        logits = imported(plain)
        return Agreement(
            network=largest_difference(logits, packaged(plain)),
            antialiasing=largest_difference(logits, packaged(smooth)),
        )


def probe_clips(count: int = 2) -> Tensor:
    """Drawn clips B T C H W uint8 RGB of 256x256."""
    clips = [resize_clip(draw_clip(action, 1, 1).frames, 256, 256) for action in tuple(ACTIONS)[:count]]
    return torch.from_numpy(np.stack(clips)).permute(0, 1, 4, 2, 3)


def largest_difference(a: Tensor, b: Tensor) -> float:
    """The largest absolute difference of two tensors of one shape."""
    return float((a - b).abs().max())
