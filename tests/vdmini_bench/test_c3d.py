from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from small_scripts import C3dCall, save_script
from torch import Tensor, nn

from vdmini_bench.assets.cache import import_asset
from vdmini_bench.config.protocol import ProtocolSpec
from vdmini_bench.config.suite import load_suite
from vdmini_bench.errors import AssetError
from vdmini_bench.metrics.c3d import clip_to_probabilities, load_c3d
from vdmini_bench.metrics.converters import CONVERTERS
from vdmini_bench.metrics.features import ClipFeatures
from vdmini_bench.metrics.frechet import Moments
from vdmini_bench.metrics.fvd import FVD_VERSIONS
from vdmini_bench.metrics.inception import inception_score_stylegan_v, inception_score_tgan_v2
from vdmini_bench.metrics.reference import Reference
from vdmini_bench.metrics.scorer import Scorer, why_no_c3d
from vdmini_bench.results.score import Score

SUITE = Path(__file__).parents[2] / "suites" / "ucf101.yaml"


class Logits(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.float().mean(dim=[1, 2, 3])[:, :101]


class FewClasses(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.softmax(x.float().mean(dim=[1, 2, 3]), dim=1)[:, :10]


class OtherCall(nn.Module):
    def forward(self, x: Tensor, scale: float) -> Tensor:
        return x * scale


class OtherLayers(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.softmax(x.float().mean(dim=[1, 2, 3])[:, :101], dim=1)


class Backwards(nn.Module):
    """The layers of C3D, and another way through them: frames run backwards."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = C3dCall()

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x.flip([2]))


def stored(folder: Path, module: nn.Module) -> Path:
    import_asset("c3d-ucf101", save_script(module, folder / "c3d.pt"), folder / "cache", convert=CONVERTERS)
    return folder / "cache"


def clips(count: int, frames: int = 16) -> Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (count, frames, 3, 80, 120), dtype=np.uint8))


@pytest.mark.parametrize(
    "module", [C3dCall(), C3dCall(gain=128 / 127.5, aligned=False), C3dCall(stores_mean=False)], ids=str
)
def test_an_imported_network_answers_as_the_file_does(tmp_path: Path, module: C3dCall) -> None:
    network = load_c3d(stored(tmp_path, module))
    assert network is not None
    together = torch.stack([clip_to_probabilities(clip, network) for clip in clips(3)])
    with torch.inference_mode():
        asked = module(clips(3).transpose(1, 2))
    assert torch.allclose(together, asked, rtol=1e-4)
    # Otherwise any network would do.
    assert float((asked[0] - asked[1]).abs().max()) > 1e-3
    with pytest.raises(ValueError, match="clips of 14 frames: C3D takes 16"):
        clip_to_probabilities(clips(1, 14)[0], network)


def test_without_a_file_there_is_no_network(tmp_path: Path) -> None:
    assert load_c3d(tmp_path) is None


@pytest.mark.parametrize(
    ("module", "said"),
    [
        (Logits(), "no probabilities"),
        (FewClasses(), r"gives \(2, 10\) where C3D has B x 101"),
        (OtherCall(), "cannot be called as the published file is"),
        (OtherLayers(), "0 convolutions over time"),
        (Backwards(), "from its own: another network"),
    ],
)
def test_another_network_is_refused(tmp_path: Path, module: nn.Module, said: str) -> None:
    with pytest.raises(AssetError, match=said):
        stored(tmp_path, module)
    assert load_c3d(tmp_path / "cache") is None


@pytest.mark.parametrize(
    ("content", "said"), [(b"<!DOCTYPE html>", "is a web page"), (b"PK\x03\x04 cut", "no TorchScript file")]
)
def test_what_is_no_network_is_refused(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "c3d.pt").write_bytes(content)
    with pytest.raises(AssetError, match=said):
        import_asset("c3d-ucf101", tmp_path / "c3d.pt", tmp_path / "cache", convert=CONVERTERS)
    assert load_c3d(tmp_path / "cache") is None


def test_a_changed_file_is_refused(tmp_path: Path) -> None:
    cache = stored(tmp_path, C3dCall())
    (cache / "c3d_ucf101.safetensors").write_bytes(b"changed")
    with pytest.raises(AssetError, match="has changed"):
        load_c3d(cache)


def protocol(**changes: object) -> ProtocolSpec:
    found = load_suite(
        SUITE, "paper", ("protocol.preset=stylegan-v", "protocol.blocks=2", "protocol.clips_per_block=12")
    )
    return found.profile.protocol.model_copy(update=changes)


def test_what_is_missing_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VDMINI_CACHE", str(tmp_path / "cache"))
    assert why_no_c3d(protocol()) == "no C3D network: vdmini-bench assets import c3d-ucf101 PATH"
    assert why_no_c3d(protocol(frames=14)) == "clips of 14 frames, and C3D takes 16"
    assert why_no_c3d(protocol(inception="i3d-kinetics400")) is None
    stored(tmp_path, C3dCall())
    assert why_no_c3d(protocol()) is None


def scores(probabilities: np.ndarray[tuple[int, int], np.dtype[np.float32]] | None) -> dict[str, Score]:
    random = np.random.default_rng(0)
    logits, flows = random.normal(size=(24, 8)).astype(np.float32), random.uniform(size=(24, 15, 2))
    features = ClipFeatures(logits, flows, probabilities)
    reference = Reference(Moments.of(logits, ddof=0), flows.reshape(-1, 2), logits)
    return {score.metric: score for score in Scorer(protocol(), "teacher", "id").of(features, reference)}


def test_both_published_scores_have_a_name_of_their_own() -> None:
    rows = np.random.default_rng(1).dirichlet(np.full(101, 0.1), size=24).astype(np.float32)
    found = scores(rows)
    tgan, stylegan = found["inception_score_tgan_v2"], found["inception_score_stylegan_v"]
    assert tgan.metric_version != stylegan.metric_version
    assert tgan.blocks == tuple(inception_score_tgan_v2(rows[part]) for part in (slice(12), slice(12, 24)))
    assert stylegan.blocks == tuple(inception_score_stylegan_v(rows[part])[0] for part in (slice(12), slice(12, 24)))


def test_a_probability_of_0_fails_one_score_and_not_the_other() -> None:
    rows = np.random.default_rng(1).dirichlet(np.ones(101), size=24).astype(np.float32)
    rows[3] = np.eye(101)[0]
    found = scores(rows)
    assert found["inception_score_tgan_v2"].status == "ok"
    failed = found["inception_score_stylegan_v"]
    assert (failed.status, failed.value, failed.n) == ("failed", None, 0)


def test_without_the_network_both_are_unavailable() -> None:
    found = scores(None)
    assert {found[name].status for name in ("inception_score_tgan_v2", "inception_score_stylegan_v")} == {"unavailable"}
    assert {found[name].status for name in ("fvd", "kvd", "flow_distance")} == {"ok"}
    assert found["fvd"].metric_version == f"{FVD_VERSIONS[protocol().network]}-n"
