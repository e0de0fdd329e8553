"""Features of single frames: what each shows, without what moves between them.

The video network of FVD was made from an image network by spreading each kernel over time (Carreira and Zisserman 2017,
"inflation"). Summing each kernel over time undoes that: what is left answers to one frame as the video network answers
to that frame held still. So features of frames need no weights besides those of FVD.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from vdmini_bench.metrics.fid import load_inception_features
from vdmini_bench.metrics.fvd import load_i3d
from vdmini_bench.metrics.i3d import SIZE, ConvolutionUnit, InceptionI3d, MaxPoolSame

I3D_FRAMES_VERSION = "i3d-kinetics400-still-1"
INCEPTION_VERSION = "pytorch-fid-inception-1"
# Edges and colours, textures, parts: later layers know actions more than frames.
LAYERS = ("Conv3d_2c_3x3", "Mixed_3c", "Mixed_4c")
# Enlarging a small frame to the network's own size shows it nothing more, and takes four times as long.
SMALL = 112


class FrameNetwork(nn.Module):
    """Gives features of frames: N 3 H W uint8 RGB of any size to N x D float32; `version` names the numbers."""

    version: str


class StillI3d(FrameNetwork):
    """I3D on still frames: the spatial means of three early layers side by side, N x 1184, equal in weight.

    `network` is taken over and changed.
    """

    version = I3D_FRAMES_VERSION

    def __init__(self, network: InceptionI3d) -> None:
        super().__init__()
        layers = dict(network.layers.named_children())
        kept = list(layers)[: list(layers).index(LAYERS[-1]) + 1]
        self.layers = nn.ModuleDict({name: layers[name] for name in kept})
        for module in self.layers.modules():
            _hold_still(module)
        self.eval()

    def forward(self, frames: Tensor) -> Tensor:
        """Map N 3 H W uint8 RGB to N x 1184 float32, each frame as if alone.

        Frames are resized to 224x224, bilinear and antialiased; to 112x112 where their shorter side is below that.
        """
        side = SMALL if min(frames.shape[2:]) < SMALL else SIZE
        pixels = frames.to(next(self.parameters()).device).float()
        pixels = nn.functional.interpolate(pixels, (side, side), mode="bilinear", align_corners=False, antialias=True)
        # Frames take the place of time, over which nothing reaches any more.
        hidden = (pixels / 127.5 - 1.0).transpose(0, 1)[None].contiguous(memory_format=torch.channels_last_3d)
        found = []
        for name, layer in self.layers.items():
            hidden = layer(hidden)
            if name in LAYERS:
                found.append(nn.functional.normalize(hidden.mean(dim=(3, 4))[0].T, dim=1))
        return torch.cat(found, dim=1) / math.sqrt(len(LAYERS))


def _hold_still(module: nn.Module) -> None:
    """Let a convolution answer to a frame as to that frame held still, and pooling leave time alone."""
    if isinstance(module, ConvolutionUnit | MaxPoolSame):
        module.kernel, module.stride = (1, *module.kernel[1:]), (1, *module.stride[1:])
    if isinstance(module, ConvolutionUnit):
        whole = module.convolution
        # Strided convolutions are padded by the unit itself.
        padding = (0, module.kernel[1] // 2, module.kernel[2] // 2) if module.symmetric else (0, 0, 0)
        still = nn.Conv3d(whole.in_channels, whole.out_channels, module.kernel, module.stride, padding, bias=False)
        with torch.no_grad():
            # Rounding follows the order in memory.
            still.weight.copy_(whole.weight.contiguous().sum(dim=2, keepdim=True))
        module.convolution = still


class InceptionFrames(FrameNetwork):
    """pytorch-fid's Inception-v3, as FID has it: N x 2048, scaled to length 1."""

    version = INCEPTION_VERSION

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, frames: Tensor) -> Tensor:
        """Map N 3 H W uint8 RGB to N x 2048 float32."""
        return nn.functional.normalize(self.network(frames.to(next(self.parameters()).device)), dim=1)


def load_frame_network(name: str = "i3d", cache: Path | None = None) -> FrameNetwork:
    """The network of that name, in eval mode and without gradients: `i3d` (in a package) or `inception` (imported).

    Raises:
        AssetError: its weights are not here and cannot be fetched.
        ValueError: there is no such network.
    """
    if name not in ("i3d", "inception"):
        raise ValueError(f"no frame network {name!r}: take i3d or inception")
    network = StillI3d(load_i3d(cache)) if name == "i3d" else InceptionFrames(load_inception_features(cache))
    network.requires_grad_(False)
    return network.to(memory_format=torch.channels_last_3d) if name == "i3d" else network  # type: ignore[call-overload]


@dataclass(frozen=True, eq=False)
class NetworkFeatures:
    """A network as `content.FrameFeatures`: what measures take that know of no torch."""

    network: FrameNetwork

    @property
    def version(self) -> str:
        """The network's."""
        return self.network.version

    def __call__(self, clip: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Features T x D float32 of a clip T H W C uint8 RGB; they depend on that clip alone.

        Raises:
            ValueError: another layout or dtype.
        """
        if clip.ndim != 4 or clip.shape[3] != 3 or clip.dtype != np.uint8:
            raise ValueError(f"the clip is {clip.dtype} of shape {clip.shape}: it must be uint8 T H W 3")
        with torch.inference_mode():
            frames = torch.from_numpy(np.ascontiguousarray(clip)).permute(0, 3, 1, 2)
            return np.asarray(self.network(frames).float().cpu().numpy())
