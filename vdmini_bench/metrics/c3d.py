"""C3D fine-tuned on UCF101, the classifier of UCF101's Inception Score (Tran et al. 2015; TGANv2; StyleGAN-V).

The one file of it that public sources show is StyleGAN-V's `c3d_ucf101.pt`, of which `c3d_script` takes the weights
and the preprocessing, which is TGANv2's: BGR, 112x112, less the mean clip.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from vdmini_bench.assets.cache import asset_path, fetch_asset

C3D = "c3d-ucf101"
FRAMES = 16
CLASSES = 101
SIZE = 112
CONVOLUTIONS = ("conv1a", "conv2a", "conv3a", "conv3b", "conv4a", "conv4b", "conv5a", "conv5b")
POOLED_AFTER = {"conv1a": (1, 2, 2), "conv2a": (2, 2, 2), "conv3b": (2, 2, 2), "conv4b": (2, 2, 2), "conv5b": (2, 2, 2)}
LINEAR = ("fc6", "fc7", "fc8")


class C3dUcf101(nn.Module):
    """B 3 16 H W uint8 RGB to B x classes probabilities; its layers have the sizes of the weights it is given.

    Frames are resized to 112x112 (bilinear, by their corners where `aligned`), multiplied by `gain`, and `offset`
    3 16 112 112 is added.
    """

    gain: Tensor
    aligned: Tensor
    offset: Tensor

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        super().__init__()
        for name in CONVOLUTIONS:
            width_out, width_in = state[f"{name}.weight"].shape[:2]
            self.add_module(name, nn.Conv3d(width_in, width_out, 3, padding=1))
        for name in LINEAR:
            width_out, width_in = state[f"{name}.weight"].shape
            self.add_module(name, nn.Linear(width_in, width_out))
        for name in ("gain", "aligned", "offset"):
            self.register_buffer(name, torch.empty_like(state[name]))
        self.load_state_dict(dict(state))
        self.eval().requires_grad_(False)

    def forward(self, video: Tensor) -> Tensor:
        """Classify clips."""
        frames = video.flip(1).transpose(1, 2).flatten(0, 1).float()
        frames = functional.interpolate(frames, (SIZE, SIZE), mode="bilinear", align_corners=bool(self.aligned))
        values = frames.unflatten(0, (len(video), FRAMES)).transpose(1, 2) * self.gain + self.offset
        for name in CONVOLUTIONS:
            values = functional.relu(self.get_submodule(name)(values))
            if name in POOLED_AFTER:
                # As in Chainer, an odd pixel at the end is a window of its own.
                values = functional.max_pool3d(values, POOLED_AFTER[name], ceil_mode=True)
        values = values.flatten(1)
        for name in LINEAR[:-1]:
            values = functional.relu(self.get_submodule(name)(values))
        logits: Tensor = self.get_submodule(LINEAR[-1])(values)
        return logits.softmax(dim=1)


def load_c3d(cache: Path | None = None) -> C3dUcf101 | None:
    """The imported network in eval mode without gradients, or None when there is none.

    Raises:
        AssetError: it has changed since it was imported.
    """
    from safetensors.torch import load_file

    if asset_path(C3D, cache) is None:
        return None
    return C3dUcf101(load_file(fetch_asset(C3D, cache)))


def clip_to_probabilities(clip: Tensor, network: nn.Module) -> Tensor:
    """Turn a clip 16 3 H W uint8 RGB of any size into 101 float32 probabilities on the CPU.

    Raises:
        ValueError: a clip of another length.
    """
    if len(clip) != FRAMES:
        raise ValueError(f"clips of {len(clip)} frames: C3D takes {FRAMES}")
    with torch.inference_mode():
        return network(clip[None].transpose(1, 2).contiguous())[0].float().cpu()
