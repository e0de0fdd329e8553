"""TorchScript files as StyleGAN-V publishes them, with layers and names of their own."""

from __future__ import annotations

import warnings
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional


def save_script(module: nn.Module, path: Path) -> Path:
    """Write a TorchScript file; that PyTorch gives the format up is no news here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(module).save(str(path))  # type: ignore[no-untyped-call]
    return path


class I3dCall(nn.Module):
    """A network behind the interface of `i3d_torchscript.pt`, with its resizing and its range."""

    def __init__(self, network: nn.Module, frames: int = 10) -> None:
        super().__init__()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            clip = torch.zeros(1, 3, frames, 224, 224)
            self.traced = torch.jit.trace(network, clip, check_trace=False)  # type: ignore[no-untyped-call]

    def forward(self, x: Tensor, rescale: bool = False, resize: bool = False, return_features: bool = False) -> Tensor:
        x = x.float()
        if rescale:
            x = x / 255 * 2 - 1
        if resize:
            x = functional.interpolate(x, size=[x.shape[2], 224, 224], mode="trilinear", align_corners=False)
        return self.traced(x) if return_features else torch.softmax(self.traced(x), dim=1)


class C3dCall(nn.Module):
    """A narrow C3D behind the interface of `c3d_ucf101.pt`: bytes in, probabilities out."""

    def __init__(self, gain: float = 1.0, aligned: bool = True, stores_mean: bool = True) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.gain, self.aligned, self.sign = gain, aligned, -1.0 if stores_mean else 1.0
        self.start = 0.0 if stores_mean else -128.0
        mean = 90 + 20 * torch.rand(1, 3, 16, 112, 112)
        self.register_buffer("clip_mean", mean if stores_mean else 128 - mean)
        widths = [3, 4, 6, 8, 8, 10, 10, 12, 12]
        self.features = nn.ModuleList(nn.Conv3d(a, b, 3, padding=1) for a, b in pairwise(widths))
        self.first, self.second, self.last = nn.Linear(12 * 16, 24), nn.Linear(24, 20), nn.Linear(20, 101)
        for layer in (*self.features, self.first, self.second):
            nn.init.kaiming_normal_(layer.weight)
        nn.init.normal_(self.last.weight, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        assert x.dtype == torch.uint8
        frames = x.flip([1]).float().transpose(1, 2).reshape(-1, 3, x.shape[3], x.shape[4])
        frames = functional.interpolate(frames, size=[112, 112], mode="bilinear", align_corners=self.aligned)
        y = frames.reshape(-1, 16, 3, 112, 112).transpose(1, 2) * self.gain + self.start + self.sign * self.clip_mean
        for place, layer in enumerate(self.features):
            y = torch.relu(layer(y))
            if place == 0:
                y = functional.max_pool3d(y, [1, 2, 2], ceil_mode=True)
            elif place in (1, 3, 5, 7):
                y = functional.max_pool3d(y, 2, ceil_mode=True)
        y = torch.relu(self.second(torch.relu(self.first(y.flatten(1)))))
        return torch.softmax(self.last(y), dim=1)
