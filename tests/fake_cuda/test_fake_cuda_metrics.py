"""What measures clips computes on a card, all of it there, up to the numbers that it brings back."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pretended import Card, convert, moved, on_card
from small_networks import save_tag2text, write_small_cache
from small_suite import write_words
from test_perceptual import lpips_state
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, unset_fake_temporarily

from vdmini_bench.assets.videomae_checkpoint import Size
from vdmini_bench.metrics.c3d import CONVOLUTIONS, C3dUcf101, clip_to_probabilities
from vdmini_bench.metrics.fid import FidInception, frame_moments
from vdmini_bench.metrics.frame_features import InceptionFrames, NetworkFeatures, StillI3d
from vdmini_bench.metrics.fvd import clips_to_features
from vdmini_bench.metrics.i3d import InceptionI3d
from vdmini_bench.metrics.perceptual import EfficientNetLite0, Lpips
from vdmini_bench.metrics.scene_classifier import SceneClassifier, read_clips
from vdmini_bench.metrics.videomae import VideoMae
from vdmini_bench.vbench.native import catalogue
from vdmini_bench.vbench.native.frames import read_clip
from vdmini_bench.vbench.native.networks import Networks
from vdmini_bench.vbench.native.questions import Question
from vdmini_bench.vbench.native.scorers import SCORERS
from vdmini_bench.vbench.native.tag2text import Tag2Text, load_tag2text

GOLDEN = Path(__file__).parents[1] / "golden"
VIDEO = GOLDEN / "vbench-a ball rolls over a meadow.mp4"
CLIP = np.zeros((16, 32, 32, 3), np.uint8)


def frames() -> Tensor:
    """A clip T C H W."""
    return torch.from_numpy(CLIP).permute(0, 3, 1, 2)


def two_images() -> list[Tensor]:
    return 2 * [torch.zeros(2, 3, 64, 64, device="cuda")]


def c3d() -> C3dUcf101:
    layers: dict[str, nn.Module] = {name: nn.Conv3d(4, 4, 3) for name in CONVOLUTIONS} | {"conv1a": nn.Conv3d(3, 4, 3)}
    layers |= {"fc6": nn.Linear(64, 8), "fc7": nn.Linear(8, 8), "fc8": nn.Linear(8, 101)}
    more = {"gain": torch.ones(()), "aligned": torch.tensor(True), "offset": torch.zeros(3, 16, 112, 112)}
    return C3dUcf101(nn.ModuleDict(layers).state_dict() | more)


def inception() -> FidInception:
    """Behind the interface of pytorch-fid's, which is not among the packages of tests."""

    class Pooled(nn.Conv2d):
        def forward(self, input: Tensor) -> Any:
            return [super().forward(input).mean((2, 3), keepdim=True)]

    return FidInception(Pooled(3, 8, 3))


def folded() -> InceptionI3d:
    network = InceptionI3d()
    network.fold_norms()
    return network


# Each network with what is asked of it, and how often that takes numbers back.
METRICS: dict[str, tuple[Callable[[], nn.Module], Callable[[Any], object], int]] = {
    "fvd": (folded, lambda network: clips_to_features([frames()[None]], network), 1),
    "fvd by videomae": (
        lambda: VideoMae(Size(44, 192, 3, 4)), lambda network: clips_to_features([frames()[None]], network), 1,
    ),
    # It asks how its frames are to be resized, which is in its file.
    "inception score": (c3d, lambda network: clip_to_probabilities(frames().cuda(), network), 2),
    "fid": (inception, lambda network: frame_moments([frames()], network, "real"), 1),
    "content": (lambda: StillI3d(InceptionI3d()), lambda network: NetworkFeatures(network)(CLIP), 1),
    "content by inception": (
        lambda: InceptionFrames(inception()), lambda network: NetworkFeatures(network)(CLIP), 1,
    ),
    "semantic": (SceneClassifier, lambda network: read_clips(network, CLIP[None, :10]), 6),
    "perceptual": (EfficientNetLite0, lambda network: network(*two_images()), 0),
    "perceptual by LPIPS": (
        lambda: Lpips(lpips_state("vgg", torch.Generator())), lambda network: network(*two_images()), 0,
    ),
}  # fmt: skip


@pytest.fixture(autouse=True)
def zeros(monkeypatch: pytest.MonkeyPatch) -> None:
    """Arrays of what has no values are of zeros, once it was brought back from the card."""
    plain = Tensor.numpy

    def numpy(tensor: Tensor) -> Any:
        if isinstance(tensor, FakeTensor):
            assert tensor.device.type == "cpu"
            return np.zeros(tensor.shape, str(tensor.dtype).removeprefix("torch."))
        return plain(tensor)

    monkeypatch.setattr(Tensor, "numpy", numpy)


@pytest.mark.parametrize("name", METRICS)
def test_a_metrics_network_runs_on_the_card(name: str, fakes: FakeTensorMode) -> None:
    build, ask, waits = METRICS[name]
    with unset_fake_temporarily():
        network = build().eval().requires_grad_(False)
    network = on_card(network)
    with Card() as card:
        ask(network)
    assert card.waits == waits


class OnCard(Networks):
    """Read from files, which only the move to the card makes fake."""

    def __getattribute__(self, name: str) -> Any:
        with unset_fake_temporarily():
            return super().__getattribute__(name)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small networks in the place of VBench's."""
    golden = json.loads((GOLDEN / "vbench_native.json").read_text(encoding="utf-8"))
    folder = tmp_path_factory.mktemp("weights")
    write_small_cache(folder, golden["shapes"])
    write_words(folder / catalogue.WORDS, golden["merges"])
    save_tag2text((folder / catalogue.TAG2TEXT).parent, golden["tag2text"])
    return folder


@pytest.fixture
def networks(cache: Path, fakes: FakeTensorMode, monkeypatch: pytest.MonkeyPatch) -> Networks:
    """VBench's, on the card as soon as each is asked for."""

    def to_card(module: nn.Module, change: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:
        with fakes:
            return convert(module, lambda value: change(fakes.from_tensor(value)), recurse)

    def tag2text(weights: Path, tags: Path, vocabulary: Path, device: torch.device) -> Tag2Text:
        # No module, and so nothing that `to_card` sees.
        found = load_tag2text(weights, tags, vocabulary, torch.device("cpu"))
        with fakes:
            vars(found).update(moved(vars(found)))
        return found

    monkeypatch.setenv("VBENCH_CACHE_DIR", str(cache))
    monkeypatch.setattr(nn.Module, "_apply", to_card)
    monkeypatch.setattr("vdmini_bench.vbench.native.networks.load_tag2text", tag2text)
    return OnCard(torch.device("cuda"))


@pytest.mark.parametrize("dimension", catalogue.FILES)
def test_a_dimension_of_vbench_is_scored_on_the_card(dimension: str, networks: Networks) -> None:
    clip = read_clip(VIDEO)
    image = GOLDEN / "vbench-image.png" if dimension.startswith("i2v") else None
    with Card() as card, torch.inference_mode():
        score = SCORERS[dimension](clip, Question(dimension, VIDEO, "", "a ball", image), networks)
    assert isinstance(score.value, float)
    # Its sentences are made word by word, of all tags where none has a value.
    assert card.waits <= len(clip.frames) or dimension == "scene"
