"""pytorch-fid's own network with seeded weights: `nox -s fid` installs it, elsewhere these tests are skipped."""

from __future__ import annotations

import dataclasses
import importlib.util

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from vdmini_bench.assets.cache import import_asset, sha256_of
from vdmini_bench.assets.catalogue import ASSETS
from vdmini_bench.metrics.fid import WEIGHTS, FidInception, frame_moments, load_inception_features, why_no_inception
from vdmini_bench.metrics.frame_features import InceptionFrames, NetworkFeatures
from vdmini_bench.metrics.frechet import frechet_distance, frechet_distance_of_moments
from vdmini_bench.vbench.driver import repair_torchvision

pytestmark = pytest.mark.skipif(importlib.util.find_spec("pytorch_fid") is None, reason="pytorch-fid is not installed")


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> FidInception:
    """The network with the weights of an imported file, as users have it."""
    repair_torchvision()
    from pytorch_fid import inception

    folder, state = tmp_path_factory.mktemp("fid"), {}
    torch.manual_seed(0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.hub, "_hub_dir", str(folder / "hub"))
        with pytest.MonkeyPatch.context() as seeded:
            seeded.setattr(inception, "load_state_dict_from_url", lambda *_, **__: {})
            seeded.setattr(nn.Module, "load_state_dict", lambda self, _: state.update(self.state_dict()))
            inception.fid_inception_v3()
        torch.save(state, folder / "weights.pth")
        published = dataclasses.replace(ASSETS[WEIGHTS], sha256=sha256_of(folder / "weights.pth"))
        patch.setitem(ASSETS, WEIGHTS, published)
        assert why_no_inception(folder / "cache") is not None
        import_asset(WEIGHTS, folder / "weights.pth", folder / "cache")
        assert why_no_inception(folder / "cache") is None
        return load_inception_features(folder / "cache")


def frames(seed: int, count: int, high: int = 256) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).integers(0, high, (count, 3, 40, 50), dtype=np.uint8))


def test_frames_become_features_of_the_imported_weights(network: FidInception) -> None:
    with torch.inference_mode():
        features = network(frames(0, 3))
        (pooled,) = network.network(frames(0, 3) / 255)
    assert features.shape == (3, 2048)
    assert torch.equal(features, pooled[:, :, 0, 0])
    assert features.std(dim=0).max() > 0
    assert not network.training


def test_frame_fid_is_the_frechet_distance_of_these_features(network: FidInception) -> None:
    real, generated = frames(0, 6), frames(1, 5, high=99)
    with torch.inference_mode():
        expected = frechet_distance(network(real), network(generated))
    both = (frame_moments(each.split(2), network, "real") for each in (real, generated))
    assert frechet_distance_of_moments(*both) == pytest.approx(expected, rel=1e-3)


def test_features_of_clips_for_comparison_have_length_1(network: FidInception) -> None:
    clip = frames(0, 3).permute(0, 2, 3, 1).numpy()
    found = NetworkFeatures(InceptionFrames(network))(clip)
    assert np.allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
