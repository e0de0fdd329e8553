"""Inception-v1 I3D for Kinetics-400, the network behind the Frechet video distance, after Carreira and Zisserman 2017.

Layer names are those of the original TensorFlow network (deepmind/kinetics-i3d), since the weights are found by name.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn
from torch.nn import functional

SIZE = 224
FEWEST_FRAMES = 9
CLASSES = 400

Triple = tuple[int, int, int]

# Output channels of branch 0; branch 1 (1x1, 3x3); branch 2 (1x1, 3x3); branch 3.
MIXED = {
    "Mixed_3b": (192, (64, 96, 128, 16, 32, 32)),
    "Mixed_3c": (256, (128, 128, 192, 32, 96, 64)),
    "Mixed_4b": (480, (192, 96, 208, 16, 48, 64)),
    "Mixed_4c": (512, (160, 112, 224, 24, 64, 64)),
    "Mixed_4d": (512, (128, 128, 256, 24, 64, 64)),
    "Mixed_4e": (512, (112, 144, 288, 32, 64, 64)),
    "Mixed_4f": (528, (256, 160, 320, 32, 128, 128)),
    "Mixed_5b": (832, (256, 160, 320, 32, 128, 128)),
    "Mixed_5c": (832, (384, 192, 384, 48, 128, 128)),
}


def pad_same(inputs: Tensor, kernel: tuple[int, ...], stride: tuple[int, ...], value: float = 0.0) -> Tensor:
    """Pad B C T H W or B C H W as TensorFlow's "SAME": ceil(size / stride) outputs, the odd pixel at the end."""
    padding: list[int] = []
    for size, window, step in reversed(list(zip(inputs.shape[2:], kernel, stride, strict=True))):
        total = max((-(-size // step) - 1) * step + window - size, 0)
        padding += [total // 2, total - total // 2]
    return functional.pad(inputs, padding, value=value) if any(padding) else inputs


class ConvolutionUnit(nn.Module):
    """Convolution with "SAME" padding, batch norm without a learned scale, ReLU."""

    def __init__(self, channels_in: int, channels_out: int, kernel: Triple, stride: Triple = (1, 1, 1)) -> None:
        super().__init__()
        self.kernel, self.stride = kernel, stride
        # With an odd kernel and stride 1 the padding is symmetric, and the convolution pads without a copy.
        self.symmetric = stride == (1, 1, 1)
        padding = (kernel[0] // 2, kernel[1] // 2, kernel[2] // 2) if self.symmetric else (0, 0, 0)
        self.convolution = nn.Conv3d(channels_in, channels_out, kernel, stride, padding, bias=False)
        self.norm: nn.Module = nn.BatchNorm3d(channels_out, eps=1e-3)

    def forward(self, inputs: Tensor) -> Tensor:
        """Map B C T H W float to B C' T' H' W' float, not negative."""
        if not self.symmetric:
            inputs = pad_same(inputs, self.kernel, self.stride)
        # In place: nobody else holds what it is given, and memory costs more here than arithmetic.
        return functional.relu_(self.norm(_convolve(inputs, self.convolution)))

    def fold_norm(self) -> None:
        """Put the batch norm's scale and shift into the convolution: the same function but for rounding."""
        norm, convolution = self.norm, self.convolution
        if not isinstance(norm, nn.BatchNorm3d):
            return
        assert norm.running_mean is not None
        assert norm.running_var is not None
        scale = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
        shift = norm.bias.double() - norm.running_mean.double() * scale
        weight = convolution.weight.double() * scale.reshape(-1, 1, 1, 1, 1)
        convolution.weight = nn.Parameter(weight.detach().to(convolution.weight.dtype))
        convolution.bias = nn.Parameter(shift.detach().to(convolution.weight.dtype))
        self.norm = nn.Identity()


def _convolve(inputs: Tensor, layer: nn.Conv3d) -> Tensor:
    """What the layer gives, by oneDNN's kernels where they are there.

    PyTorch asks them for small kernels only where it has several threads: in one it is slower by half, and rounds
    otherwise.
    """
    if inputs.device.type != "cpu" or inputs.dtype != torch.float32 or not torch.backends.mkldnn.is_available():
        plain: Tensor = layer(inputs)
        return plain
    assert not isinstance(layer.padding, str)
    return torch.mkldnn_convolution(
        inputs, layer.weight, layer.bias, layer.padding, layer.stride, layer.dilation, layer.groups
    )


class MaxPoolSame(nn.Module):
    """Max pooling with "SAME" padding: padded places never win. An even window needs a stride above 1."""

    def __init__(self, kernel: Triple, stride: Triple) -> None:
        super().__init__()
        self.kernel, self.stride = kernel, stride

    def forward(self, inputs: Tensor) -> Tensor:
        """Map B C T H W float to B C T' H' W' float."""
        # What is missing at the end of an axis is left to `ceil_mode`, which needs no padded copy.
        sizes = zip(inputs.shape[2:], self.kernel, self.stride, strict=True)
        before = [max((-(-size // step) - 1) * step + window - size, 0) // 2 for size, window, step in sizes]
        return functional.max_pool3d(inputs, self.kernel, self.stride, padding=before, ceil_mode=True)


class MixedBlock(nn.Module):
    """Four parallel branches, concatenated over channels."""

    def __init__(self, channels_in: int, channels: tuple[int, int, int, int, int, int]) -> None:
        super().__init__()
        point, cube = (1, 1, 1), (3, 3, 3)
        first, second = "Conv3d_0a_1x1", "Conv3d_0b_3x3"

        def narrow_then_cube(narrow: int, out: int) -> nn.Sequential:
            return _named(
                {first: ConvolutionUnit(channels_in, narrow, point), second: ConvolutionUnit(narrow, out, cube)}
            )

        self.Branch_0 = _named({first: ConvolutionUnit(channels_in, channels[0], point)})
        self.Branch_1 = narrow_then_cube(channels[1], channels[2])
        self.Branch_2 = narrow_then_cube(channels[3], channels[4])
        self.Branch_3 = _named(
            {
                "MaxPool3d_0a_3x3": MaxPoolSame(cube, point),
                "Conv3d_0b_1x1": ConvolutionUnit(channels_in, channels[5], point),
            }
        )

    def forward(self, inputs: Tensor) -> Tensor:
        """Map B C T H W float to B C' T H W float."""
        branches = (self.Branch_0, self.Branch_1, self.Branch_2, self.Branch_3)
        return torch.cat([branch(inputs) for branch in branches], dim=1)


class InceptionI3d(nn.Module):
    """The I3D classifier up to its 400 logits; made in eval mode, as the features of FVD need it."""

    def __init__(self) -> None:
        super().__init__()
        mixed = {name: MixedBlock(channels_in, channels) for name, (channels_in, channels) in MIXED.items()}
        self.layers = _named(
            {
                "Conv3d_1a_7x7": ConvolutionUnit(3, 64, (7, 7, 7), (2, 2, 2)),
                "MaxPool3d_2a_3x3": MaxPoolSame((1, 3, 3), (1, 2, 2)),
                "Conv3d_2b_1x1": ConvolutionUnit(64, 64, (1, 1, 1)),
                "Conv3d_2c_3x3": ConvolutionUnit(64, 192, (3, 3, 3)),
                "MaxPool3d_3a_3x3": MaxPoolSame((1, 3, 3), (1, 2, 2)),
                **{name: mixed[name] for name in mixed if name.startswith("Mixed_3")},
                "MaxPool3d_4a_3x3": MaxPoolSame((3, 3, 3), (2, 2, 2)),
                **{name: mixed[name] for name in mixed if name.startswith("Mixed_4")},
                "MaxPool3d_5a_2x2": MaxPoolSame((2, 2, 2), (2, 2, 2)),
                **{name: mixed[name] for name in mixed if name.startswith("Mixed_5")},
            }
        )
        self.logits = nn.Conv3d(1024, CLASSES, 1)
        self.eval()

    def fold_norms(self) -> None:
        """Put every batch norm into its convolution, after loading weights; logits move by rounding, some 3e-5."""
        for module in self.modules():
            if isinstance(module, ConvolutionUnit):
                module.fold_norm()

    def forward(self, video: Tensor) -> Tensor:
        """Classify clips.

        Args:
            video: B 3 T 224 224 float32 RGB in [-1, 1], T >= 9.

        Returns:
            B x 400 float32 logits, averaged over time.

        Raises:
            ValueError: another layout, size or dtype, or fewer than 9 frames.
        """
        if video.ndim != 5 or video.shape[1] != 3 or tuple(video.shape[3:]) != (SIZE, SIZE):
            raise ValueError(f"video has shape {tuple(video.shape)}: resize it to B 3 T {SIZE} {SIZE}")
        if not video.is_floating_point():
            raise ValueError(f"video is {video.dtype}: scale it to float32 in [-1, 1]")
        if video.shape[2] < FEWEST_FRAMES:
            raise ValueError(f"clips of {video.shape[2]} frames: I3D needs at least {FEWEST_FRAMES}, use longer clips")
        pooled = functional.avg_pool3d(self.layers(video), (2, 7, 7), stride=1)
        logits: Tensor = self.logits(pooled)
        return logits.mean(dim=(2, 3, 4))


def _named(layers: dict[str, nn.Module]) -> nn.Sequential:
    return nn.Sequential(OrderedDict(layers))
