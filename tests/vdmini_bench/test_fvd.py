from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from scipy.linalg import sqrtm
from small_scripts import I3dCall, save_script
from torch import Tensor, nn

from vdmini_bench.assets.cache import import_asset
from vdmini_bench.config.protocols import FeatureNetwork
from vdmini_bench.config.suite import load_suite
from vdmini_bench.errors import AssetError
from vdmini_bench.metrics.agreement import measure_agreement, probe_clips
from vdmini_bench.metrics.converters import CONVERTERS
from vdmini_bench.metrics.frechet import frechet_distance
from vdmini_bench.metrics.fvd import (
    FVD_VERSIONS,
    clips_to_features,
    load_i3d,
)
from vdmini_bench.metrics.i3d import InceptionI3d
from vdmini_bench.metrics.i3d_script import read_i3d_script
from vdmini_bench.metrics.kernel import KVD_VERSIONS
from vdmini_bench.suites.distributions import networks_digest
from vdmini_bench.suites.missing import missing_networks

SUITE = Path(__file__).parents[2] / "suites" / "ucf101.yaml"


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


def test_the_size_of_the_batches_changes_no_bit(i3d_weights: Path) -> None:
    network, clips = load_i3d(i3d_weights.parent), random_clips(3, 40)
    apart = clips_to_features(clips.split(1), network)
    for size in (2, 16):
        assert torch.equal(clips_to_features(clips.split(size), network), apart)
    # Nor does what comes before: any share of the clips has the features it has among all.
    assert torch.equal(clips_to_features([clips[2:]], network), apart[2:])


def test_without_antialiasing_frames_shrink_as_in_stylegan_v() -> None:
    clips = random_clips(1, 256)
    probe = Probe()
    clips_to_features([clips], probe, "plain")
    video = clips.transpose(1, 2).float()
    size = (9, 224, 224)
    plain = nn.functional.interpolate(video, size=size, mode="trilinear", align_corners=False)
    assert torch.allclose(probe.seen[0], plain / 255 * 2 - 1, atol=1e-5)
    smooth = Probe()
    clips_to_features([clips], smooth)
    assert not torch.allclose(smooth.seen[0], probe.seen[0], atol=0.1)


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


def test_the_distance_is_that_of_cd_fvd(golden: Path) -> None:
    """Its formula: N in the covariance from raw sums, and the square root of the product of both by SciPy."""
    vectors = np.load(golden / "distribution_metrics.npz")

    def moments(features: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        rows = features.astype(np.float64)
        mean = rows.sum(axis=0) / len(rows)
        return mean, rows.T @ rows / len(rows) - np.outer(mean, mean)

    real, made = moments(vectors["x"]), moments(vectors["y"])
    root = np.real(sqrtm(real[1] @ made[1]))
    expected = np.square(real[0] - made[0]).sum() + np.trace(made[1] + real[1] - 2 * root)
    assert frechet_distance(vectors["x"].astype(np.float32), vectors["y"].astype(np.float32), ddof=0) == pytest.approx(
        float(expected), rel=1e-6
    )


def test_weights_that_changed_are_fetched_again(
    i3d_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for suffix in ("", ".sha256"):
        shutil.copy(i3d_weights.with_name(i3d_weights.name + suffix), tmp_path)
    copy = tmp_path / i3d_weights.name
    copy.write_bytes(copy.read_bytes()[:-1] + b"\0")

    def refuse(name: str, work: Path) -> Path:
        raise AssetError("i3d-kinetics400", "fetching", "")

    monkeypatch.setattr("vdmini_bench.assets.cache.download_package", refuse)
    with pytest.raises(AssetError, match="fetching"):
        load_i3d(tmp_path)


class Ported(nn.Module):
    """The layers of I3D as ports to PyTorch register them: the classifier first, batch norms not folded."""

    def __init__(self, network: InceptionI3d, epsilon: float) -> None:
        super().__init__()
        self.classifier, self.body = network.logits, network.layers
        for module in self.modules():
            if isinstance(module, nn.BatchNorm3d):
                module.eps = epsilon

    def forward(self, video: Tensor) -> Tensor:
        pooled = nn.functional.avg_pool3d(self.body(video), (2, 7, 7), stride=1)
        return self.classifier(pooled).mean(dim=(2, 3, 4))


def ported(i3d_weights: Path, epsilon: float) -> Ported:
    network = InceptionI3d().requires_grad_(False)
    network.load_state_dict(load_file(i3d_weights))
    return Ported(network, epsilon).eval()


@pytest.mark.parametrize("epsilon", [1e-3, 1e-5])
def test_the_weights_of_an_imported_script_answer_as_it_does_and_are_taken_by_name_alone(
    i3d_weights: Path, tmp_path: Path, epsilon: float
) -> None:
    original = ported(i3d_weights, epsilon)
    cache = tmp_path / "cache"
    stored = import_asset(
        "i3d-torchscript", save_script(I3dCall(original), tmp_path / "from_the_user.pt"), cache, convert=CONVERTERS
    )
    for suffix in ("", ".sha256"):
        shutil.copy(i3d_weights.with_name(i3d_weights.name + suffix), cache)
    network, packaged = load_i3d(cache, "i3d-torchscript"), load_i3d(cache)
    alone = load_i3d(i3d_weights.parent).state_dict()
    assert all(torch.equal(value, alone[name]) for name, value in packaged.state_dict().items())
    video = torch.rand(1, 3, 9, 224, 224, generator=torch.Generator().manual_seed(1)) * 2 - 1
    with torch.inference_mode():
        assert torch.allclose(network(video), original(video), atol=1e-3)
    agreement = measure_agreement(network, packaged, probe_clips(1))
    if epsilon == 1e-3:
        assert agreement.network < 1e-3
        assert agreement.antialiasing > 10 * agreement.network
        assert "they agree but for rounding" in str(agreement)
    else:
        assert agreement.network > 0.01
        assert "epsilon are others" in str(agreement)
    stored.write_bytes(stored.read_bytes() + b" ")
    with pytest.raises(AssetError, match="has changed"):
        load_i3d(cache, "i3d-torchscript")


def test_every_network_has_versions_of_its_own() -> None:
    for versions in (FVD_VERSIONS, KVD_VERSIONS):
        assert {*versions} == {*get_args(FeatureNetwork)}
        assert len({*versions.values()}) == len(versions)


def test_what_the_cache_holds_never_chooses_the_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VDMINI_CACHE", str(tmp_path))
    for name in ("i3d_kinetics400", "i3d_torchscript"):
        (tmp_path / f"{name}.safetensors").write_bytes(name.encode())
        digest = hashlib.sha256(name.encode()).hexdigest()
        (tmp_path / f"{name}.safetensors.sha256").write_text(digest)
    protocol = load_suite(SUITE, "paper").profile.protocol
    for name in ("i3d-kinetics400", "i3d-torchscript"):
        named = protocol.model_copy(update={"network": name})
        assert networks_digest(named) == hashlib.sha256(name.replace("-", "_").encode()).hexdigest()
        assert missing_networks(named) == []
    (tmp_path / "i3d_torchscript.safetensors").unlink()
    (missing,) = missing_networks(named)
    assert missing.command == "vdmini-bench assets import i3d-torchscript PATH"


def test_a_script_whose_norms_were_folded_is_read(i3d_weights: Path, tmp_path: Path) -> None:
    packaged = load_i3d(i3d_weights.parent)
    state = read_i3d_script(save_script(I3dCall(packaged), tmp_path / "folded.pt"))
    assert {name: value.shape for name, value in state.items()} == {
        name: value.shape for name, value in packaged.state_dict().items()
    }
    assert all(torch.equal(value, packaged.state_dict()[name]) for name, value in state.items())


class Wrong(nn.Module):
    def forward(self, x: Tensor, rescale: bool = False, resize: bool = False, return_features: bool = False) -> Tensor:
        return x.float().mean(dim=[2, 3, 4])


class NoLayers(Wrong):
    def forward(self, x: Tensor, rescale: bool = False, resize: bool = False, return_features: bool = False) -> Tensor:
        return x.float().mean(dim=[2, 3, 4]).repeat(1, 134)[:, :400]


class OtherCall(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x


@pytest.mark.parametrize(
    ("module", "said"),
    [
        (Wrong(), r"gives \(2, 3\) where I3D has B x 400 logits"),
        (NoLayers(), "0 convolutions over time of other shapes than I3D's 58"),
        (OtherCall(), "cannot be called as the published file is"),
    ],
)
def test_a_script_of_another_network_is_refused(tmp_path: Path, module: nn.Module, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        read_i3d_script(save_script(module, tmp_path / "i3d_torchscript.pt"))


def test_a_script_that_answers_otherwise_is_refused(i3d_weights: Path, tmp_path: Path) -> None:
    class Shifted(Ported):
        def forward(self, video: Tensor) -> Tensor:
            return super().forward(video.roll(1, dims=2))

    network = InceptionI3d().requires_grad_(False)
    network.load_state_dict(load_file(i3d_weights))
    path = save_script(I3dCall(Shifted(network, 1e-3).eval()), tmp_path / "i3d_torchscript.pt")
    with pytest.raises(ValueError, match="from its own: another network"):
        read_i3d_script(path)
