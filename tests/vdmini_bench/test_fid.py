from __future__ import annotations

import dataclasses
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance

from vdmini.finite import NotFiniteError
from vdmini_bench.assets import cache as assets
from vdmini_bench.errors import AssetError
from vdmini_bench.metrics.fid import FidInception, frame_moments, load_inception_features, why_no_inception
from vdmini_bench.metrics.frechet import frechet_distance, frechet_distance_of_moments

WEIGHTS = "pt_inception-2015-12-05-6726825d.pth"


class ChannelMeans(nn.Module):
    num_features = 3

    def forward(self, frames: Tensor) -> Tensor:
        return frames.float().mean(dim=(2, 3))


def frames(seed: int, count: int, high: int = 256) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).integers(0, high, (count, 3, 8, 8), dtype=np.uint8))


def test_equals_torchmetrics_distance() -> None:
    real, generated = frames(0, 40), frames(1, 30, high=200)
    theirs = FrechetInceptionDistance(feature=ChannelMeans())
    theirs.update(real, real=True)
    theirs.update(generated, real=False)
    both = (frame_moments(each.chunk(3), ChannelMeans(), "real") for each in (generated, real))
    found = frechet_distance_of_moments(*both)
    assert found == pytest.approx(float(theirs.compute()), rel=1e-4)
    assert found == pytest.approx(frechet_distance(ChannelMeans()(real), ChannelMeans()(generated)), rel=1e-12)
    same = frame_moments([real], ChannelMeans(), "real")
    assert frechet_distance_of_moments(same, same) == pytest.approx(0, abs=1e-3)


def test_leaves_the_random_state_alone() -> None:
    before = torch.get_rng_state()
    frame_moments([frames(0, 4)], ChannelMeans(), "real")
    assert torch.equal(torch.get_rng_state(), before)


def test_refuses_bad_input() -> None:
    with pytest.raises(ValueError, match="1 generated frames"):
        frame_moments([frames(0, 1)], ChannelMeans(), "generated")
    with pytest.raises(ValueError, match="0 real frames"):
        frame_moments([], ChannelMeans(), "real")
    with pytest.raises(ValueError, match="float32"):
        frame_moments([frames(0, 4).float()], ChannelMeans(), "real")
    with pytest.raises(ValueError, match="N 3 H W"):
        frame_moments(frames(0, 4), ChannelMeans(), "real")


class FakeInception(nn.Module):
    """Asks torch.hub for its weights as pytorch-fid's network does, and gives its output in the same form."""

    def __init__(self) -> None:
        super().__init__()
        path = Path(torch.hub.get_dir()) / "checkpoints" / WEIGHTS
        self.weights = path.read_bytes()

    def forward(self, frames: Tensor) -> list[Tensor]:
        assert frames.max() <= 1
        return [frames.mean(dim=(1, 2, 3), keepdim=True).expand(-1, 2048, 1, 1)]


@pytest.fixture
def pytorch_fid(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    module = types.ModuleType("pytorch_fid.inception")
    module.InceptionV3 = FakeInception  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pytorch_fid", types.ModuleType("pytorch_fid"))
    monkeypatch.setitem(sys.modules, "pytorch_fid.inception", module)
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path / "hub"))


def test_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "pytorch_fid", None)
    with pytest.raises(AssetError, match="pip install pytorch-fid"):
        load_inception_features(tmp_path)


def test_a_torchvision_of_another_torch_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "pytorch_fid").mkdir()
    (tmp_path / "pytorch_fid" / "__init__.py").touch()
    (tmp_path / "pytorch_fid" / "inception.py").write_text("raise RuntimeError('no operator torchvision::nms')")
    for name in [name for name in sys.modules if name.startswith("pytorch_fid")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(tmp_path)
    assert "does not fit this torch (no operator torchvision::nms)" in (why_no_inception(tmp_path) or "")


@pytest.mark.usefixtures("pytorch_fid")
def test_missing_weights_are_named(tmp_path: Path) -> None:
    with pytest.raises(AssetError, match="vdmini-bench assets import pytorch-fid-inception PATH"):
        load_inception_features(tmp_path / "cache")


@pytest.mark.usefixtures("pytorch_fid")
def test_weights_of_torch_hub_are_used(tmp_path: Path) -> None:
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    (tmp_path / "hub" / "checkpoints" / WEIGHTS).write_bytes(b"from the hub")
    network = load_inception_features(tmp_path / "cache")
    assert network.network.weights == b"from the hub"
    assert isinstance(network, FidInception)
    assert network(frames(0, 5)).shape == (5, 2048)
    assert not network.training


@pytest.mark.usefixtures("pytorch_fid")
def test_imported_weights_are_preferred_and_the_hub_restored(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "given.pth").write_bytes(b"imported")
    published = assets.sha256_of(tmp_path / "given.pth")
    entry = dataclasses.replace(assets.ASSETS["pytorch-fid-inception"], sha256=published)
    monkeypatch.setitem(assets.ASSETS, "pytorch-fid-inception", entry)
    assets.import_asset("pytorch-fid-inception", tmp_path / "given.pth", tmp_path / "cache")
    network = load_inception_features(tmp_path / "cache")
    assert network.network.weights == b"imported"
    assert torch.hub.get_dir() == str(tmp_path / "hub")


def test_features_that_are_not_finite_are_of_a_named_clip() -> None:
    class DarkIsNothing(ChannelMeans):
        def forward(self, frames: Tensor) -> Tensor:
            means = super().forward(frames)
            return means / (means > 10)

    good, dark = [frames(0, 4), frames(1, 4)], frames(2, 4, high=9)
    with pytest.raises(NotFiniteError, match="frames of generated clip 3 are not finite"):
        frame_moments([*good, dark], DarkIsNothing(), "generated")
    with pytest.raises(NotFiniteError, match="frames of real clip 1 are not finite"):
        frame_moments([dark, *good], DarkIsNothing(), "real")
