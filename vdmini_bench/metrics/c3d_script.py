"""The weights of StyleGAN-V's `c3d_ucf101.pt` in our own C3D, once it was seen to answer as the file does.

The file reproduces TGANv2's Chainer network: `script(x)` takes x B 3 16 H W uint8 and gives probabilities. Layers are
told by order and shape, as in `i3d_script`; how it scales and resizes frames is found by trying what the two public
implementations could mean.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import product
from pathlib import Path

import torch
from torch import Tensor

from vdmini_bench.assets.torchscript import ask_script, open_script
from vdmini_bench.metrics.agreement import ROUNDING, largest_difference, probe_clips
from vdmini_bench.metrics.c3d import CLASSES, CONVOLUTIONS, FRAMES, LINEAR, SIZE, C3dUcf101

# TGANv2 maps frames to [-1, 1] by x / 128 - 1 or x / 127.5 - 1, and its network multiplies by 128.
GAINS = (1.0, 128 / 127.5)
# Below it a probability has no digits left.
SMALLEST = 1e-30


def read_c3d_script(path: Path) -> dict[str, Tensor]:
    """The state dict of `C3dUcf101` that answers as the file does.

    Raises:
        ValueError: the file is no TorchScript, or another network.
    """
    script = open_script(path)
    clips = probe_clips()
    repeated = clips[:, [min(frame, clips.shape[1] - 1) for frame in range(FRAMES)]].transpose(1, 2).contiguous()
    answer = ask_script(script, repeated)
    if tuple(answer.shape) != (len(clips), CLASSES):
        raise ValueError(f"it gives {tuple(answer.shape)} where C3D has B x {CLASSES} probabilities")
    if not largest_difference(answer.sum(dim=1), torch.ones(len(clips))) < ROUNDING or float(answer.min()) < 0:
        raise ValueError("what it gives are no probabilities: they do not add up to 1")
    wanted = answer.clamp(min=SMALLEST).log()
    nearest, found = float("inf"), None
    for state in _candidates(script.state_dict()):
        with torch.inference_mode():
            difference = largest_difference(C3dUcf101(state)(repeated).clamp(min=SMALLEST).log(), wanted)
        if difference < nearest:
            nearest, found = difference, state
    if found is None or nearest > ROUNDING:
        raise ValueError(
            f"with its weights our C3D gives logarithms of probabilities that are {nearest:.2g} from its own: another"
            " network"
        )
    return found


def _candidates(state: Mapping[str, Tensor]) -> Iterator[dict[str, Tensor]]:
    """Our state dict for each way in which the file may scale, resize and centre frames.

    Raises:
        ValueError: there are other layers, or no mean clip.
    """
    convolutions = [name for name, value in state.items() if value.ndim == 5 and tuple(value.shape[2:]) == (3, 3, 3)]
    linear = [name for name, value in state.items() if value.ndim == 2]
    means = [value for value in state.values() if value.numel() == 3 * FRAMES * SIZE * SIZE and value.ndim in (4, 5)]
    if (len(convolutions), len(linear), len(means)) != (len(CONVOLUTIONS), len(LINEAR), 1):
        raise ValueError(
            f"it has {len(convolutions)} convolutions over time, {len(linear)} linear layers and {len(means)} mean"
            f" clips where C3D has {len(CONVOLUTIONS)}, {len(LINEAR)} and 1: another network"
        )
    weights: dict[str, Tensor] = {}
    for ours, theirs in zip((*CONVOLUTIONS, *LINEAR), (*convolutions, *linear), strict=True):
        weights[f"{ours}.weight"] = state[theirs].clone()
        weights[f"{ours}.bias"] = state[theirs.removesuffix("weight") + "bias"].clone()
    mean = means[0].reshape(3, FRAMES, SIZE, SIZE).float()
    # Stored as it is, or as what the network adds.
    for gain, aligned, offset in product(GAINS, (True, False), (-mean, mean - 128)):
        yield {**weights, "gain": torch.tensor(gain), "aligned": torch.tensor(aligned), "offset": offset}
