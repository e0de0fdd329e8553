from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from vdmini_bench.assets import AssetError, import_asset
from vdmini_bench.metrics.frechet import frechet_distance
from vdmini_bench.metrics.fvd import FVD_VERSION, TorchScriptI3d, clips_to_features, load_i3d


class Probe(nn.Module):
    """Notes what it is given; features are corner pixels and the mean."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Tensor] = []

    def forward(self, video: Tensor) -> Tensor:
        self.seen.append(video)
        return torch.stack([video[:, 0, 0, 0, 0], video[:, 2, -1, -1, -1], video.mean(dim=(1, 2, 3, 4))], dim=1)


def random_clips(count: int, size: int, frames: int = 9) -> Tensor:
    values = np.random.default_rng(0).integers(0, 256, (count, frames, 3, size, size), dtype=np.uint8)
    return torch.from_numpy(values)


def test_features_equal_the_original(i3d_weights: Path, golden: Path) -> None:
    vectors = np.load(golden / "i3d_kinetics400.npz")
    video = torch.from_numpy(vectors["video"]).repeat_interleave(16, 2).repeat_interleave(16, 3).permute(0, 1, 4, 2, 3)
    network = load_i3d(i3d_weights.parent)
    features = clips_to_features([video[:1], video[1:]], network)
    assert features.dtype == torch.float32
    assert not features.requires_grad
    assert np.abs(features.numpy() - vectors["logits"]).max() < 1e-4
    assert not network.training
    assert not any(parameter.requires_grad for parameter in network.parameters())
    assert FVD_VERSION


def test_range_layout_and_order() -> None:
    clips = torch.zeros(2, 9, 3, 224, 224, dtype=torch.uint8)
    clips[1] = 255
    clips[0, 0, 0, 0, 0] = 255
    clips[1, -1, 2, -1, -1] = 0
    probe = Probe()
    features = clips_to_features(iter([clips[:1], clips[1:]]), probe)
    assert features[:, 0].tolist() == [1, 1]
    assert features[:, 1].tolist() == [-1, -1]
    assert features[0, 2] < 0 < features[1, 2]
    assert probe.seen[0].shape == (1, 3, 9, 224, 224)
    assert probe.seen[0].dtype == torch.float32


def test_batch_size_does_not_matter() -> None:
    clips = random_clips(4, 40)
    together, apart = clips_to_features([clips], Probe()), clips_to_features(clips.chunk(4), Probe())
    assert torch.allclose(together, apart, atol=1e-6)


def test_enlarging_is_plain_bilinear() -> None:
    clips = random_clips(1, 56)
    probe = Probe()
    clips_to_features([clips], probe)
    plain = nn.functional.interpolate(clips[0].float(), size=(224, 224), mode="bilinear", align_corners=False)
    assert torch.allclose(probe.seen[0][0].transpose(0, 1), plain / 127.5 - 1, atol=1e-5)


def test_shrinking_is_antialiased() -> None:
    # One-pixel stripes become almost mid grey; without antialiasing every third column would be picked.
    clips = torch.zeros(1, 9, 3, 672, 672, dtype=torch.uint8)
    clips[..., ::2] = 254
    probe = Probe()
    clips_to_features([clips], probe)
    assert probe.seen[0].std() < 0.2
    assert probe.seen[0].mean() == pytest.approx(127 / 127.5 - 1, abs=0.01)


def test_batches_are_taken_one_at_a_time() -> None:
    probe = Probe()

    def batches() -> Iterator[Tensor]:
        for number in range(3):
            assert len(probe.seen) == number
            yield random_clips(1, 32)

    assert len(clips_to_features(batches(), probe)) == 3


def test_refuses_bad_batches() -> None:
    with pytest.raises(ValueError, match="no clips"):
        clips_to_features([], Probe())
    with pytest.raises(ValueError, match="float32"):
        clips_to_features([torch.zeros(1, 9, 3, 8, 8)], Probe())
    with pytest.raises(ValueError, match="B T 3 H W"):
        clips_to_features([torch.zeros(1, 3, 9, 8, 8, dtype=torch.uint8)], Probe())
    with pytest.raises(ValueError, match="8 frames"):
        clips_to_features([torch.zeros(1, 8, 3, 8, 8, dtype=torch.uint8)], Probe())


def test_more_noise_is_farther(i3d_weights: Path) -> None:
    network = load_i3d(i3d_weights.parent)
    random = np.random.default_rng(0)
    real = np.repeat(np.repeat(random.integers(60, 196, (4, 9, 3, 4, 4)), 16, axis=3), 16, axis=4)
    noises = [real + random.normal(0, scale, real.shape) for scale in (0, 20, 60)]
    batches = [torch.from_numpy(noise.clip(0, 255).astype(np.uint8)) for noise in noises]
    features = [clips_to_features(batch.chunk(2), network) for batch in batches]
    distances = [frechet_distance(features[0], other) for other in features]
    assert distances[0] == pytest.approx(0, abs=1e-3)
    assert distances[0] < distances[1] < distances[2]


class FakeScript(nn.Module):
    """The call interface of StyleGAN-V's file."""

    def forward(self, x: Tensor, rescale: bool = True, resize: bool = True, return_features: bool = False) -> Tensor:
        assert not rescale
        assert not resize
        assert return_features
        return x.mean(dim=[2, 3, 4]).repeat(1, 134)[:, :400]


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
def test_an_imported_torchscript_is_preferred(tmp_path: Path) -> None:
    source = tmp_path / "from_the_user.pt"
    torch.jit.script(FakeScript()).save(str(source))  # type: ignore[no-untyped-call]
    stored = import_asset("i3d-torchscript", source, tmp_path / "cache")
    network = load_i3d(tmp_path / "cache")
    assert isinstance(network, TorchScriptI3d)
    assert clips_to_features([random_clips(2, 32)], network).shape == (2, 400)
    stored.write_bytes(stored.read_bytes() + b" ")
    with pytest.raises(AssetError, match="has changed"):
        load_i3d(tmp_path / "cache")


def test_weights_that_changed_are_fetched_again(
    i3d_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for suffix in ("", ".sha256"):
        shutil.copy(i3d_weights.with_name(i3d_weights.name + suffix), tmp_path)
    copy = tmp_path / i3d_weights.name
    copy.write_bytes(copy.read_bytes()[:-1] + b"\0")

    def refuse(name: str, work: Path) -> Path:
        raise AssetError(name, "fetching", "")

    monkeypatch.setattr("vdmini_bench.assets._download_archive", refuse)
    with pytest.raises(AssetError, match="fetching"):
        load_i3d(tmp_path)
