"""The classifier of drawn clips: it learns, it reads what it learnt, and its files are checked."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from vdmini_bench.data.captions import Scene, choose_scenes, draw_scenes
from vdmini_bench.embedded.classifier import save_classifier, train_classifier
from vdmini_bench.metrics.scene_classifier import (
    HEADS,
    RECORD,
    SHIPPED,
    WEIGHTS,
    MissingClassifierError,
    SceneClassifier,
    label_tensors,
    load_classifier,
    read_clips,
    to_network,
)
from vdmini_bench.metrics.semantic import DIMENSIONS, Reading, mean_shares


class Perfect(nn.Module):
    """Answers with the labels of known readings, in order."""

    def __init__(self, readings: list[Reading]) -> None:
        super().__init__()
        self.labels = label_tensors(readings)
        self.place = nn.Parameter(torch.zeros(1), requires_grad=False)

    def forward(self, clips: Tensor) -> dict[str, Tensor]:
        """One-hot logits."""
        start = int(self.place)
        self.place += len(clips)
        return {
            name: torch.eye(len(answers))[self.labels[name][start : start + len(clips)]]
            for name, answers in HEADS.items()
        }


def test_readings_are_what_the_logits_say() -> None:
    scenes = choose_scenes(70, "any")
    readings = [Reading.of(scene) for scene in scenes]
    clips = np.zeros((70, 10, 32, 32, 3), dtype=np.uint8)
    network: SceneClassifier = Perfect(readings)  # type: ignore[assignment]
    assert read_clips(network, clips) == readings


def test_the_network_is_small_and_tells_sides_apart() -> None:
    torch.manual_seed(0)
    network = SceneClassifier().eval()
    assert sum(parameter.numel() for parameter in network.parameters()) * 4 < 3e6
    pixels = to_network(draw_scenes(choose_scenes(2, "any", things=2), 0))
    with torch.inference_mode():
        logits, mirrored, again = network(pixels), network(pixels.flip(-1)), network(pixels[1:])
    assert {name: found.shape for name, found in logits.items()} == {
        name: (2, len(answers)) for name, answers in HEADS.items()
    }
    assert not torch.allclose(logits["left_shape"], mirrored["left_shape"], atol=1e-3)
    assert torch.allclose(logits["motion"][1:], again["motion"], atol=1e-5), "no clip depends on its batch"


def test_a_little_training_finds_the_background(tmp_path: Path) -> None:
    """Chance is a quarter."""
    scenes = choose_scenes(64, "any")
    network = train_classifier(draw_scenes(scenes, 0), scenes, 20, tmp_path / "classifier.pt", torch.device("cpu"))
    unseen = choose_scenes(64, "any", skip=1000)
    shares = mean_shares(unseen, read_clips(network, draw_scenes(unseen, 1000)))
    assert shares["embedded-scene"] > 0.5


def test_what_is_saved_is_loaded_with_its_accuracy(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = SceneClassifier().eval()
    record = save_classifier(tmp_path / "classifier", network, IdentityVae(), 12)  # type: ignore[arg-type]
    loaded = load_classifier(tmp_path / "classifier")
    clips = draw_scenes(choose_scenes(4, "any"), 5)
    assert read_clips(loaded.network, clips) == read_clips(network, clips)
    assert loaded.accuracy.keys() == DIMENSIONS.keys()
    # A VAE that changes nothing loses nothing.
    assert record["accuracy_on_vae_copies"] == record["accuracy"] == loaded.accuracy
    assert record["accuracy_held_out_combinations"].keys() == DIMENSIONS.keys()  # type: ignore[attr-defined]


class IdentityVae:
    """A VAE whose latents are the pixels."""

    device = torch.device("cpu")

    def encode(self, frames: Tensor) -> IdentityVae:
        """Keep the frames."""
        self.mean = self.sample = frames
        self.latent_dist = self
        return self

    def decode(self, latents: Tensor) -> IdentityVae:
        """Give them back."""
        self.sample = latents
        return self


def test_missing_and_foreign_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(MissingClassifierError, match="not part of this installation"):
        load_classifier(tmp_path / "absent")
    save_classifier(tmp_path, SceneClassifier(), IdentityVae(), 12)  # type: ignore[arg-type]
    (tmp_path / "accuracy.json").write_text(json.dumps({"n": 1}))
    with pytest.raises(MissingClassifierError, match="another classifier"):
        load_classifier(tmp_path)


@pytest.mark.parametrize("shape", [(1, 8, 32, 32, 3), (1, 10, 64, 64, 3), (1, 10, 3, 32, 32)])
def test_clips_of_another_kind_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="the classifier reads uint8 B 10 32 32 3"):
        to_network(np.zeros(shape, dtype=np.uint8))
    with pytest.raises(ValueError, match="float32"):
        to_network(np.zeros((1, 10, 32, 32, 3), dtype=np.float32))


def test_the_shipped_classifier_is_as_accurate_as_its_record_says() -> None:
    shipped = load_classifier()
    scenes: list[Scene] = choose_scenes(160, "any", skip=5_000_000)
    found = mean_shares(scenes, read_clips(shipped.network, draw_scenes(scenes, 5_000_000)))
    for dimension, share in found.items():
        assert share == pytest.approx(shipped.accuracy[dimension], abs=0.1)
    assert min(shipped.accuracy.values()) > 0.9
    assert sum(path.stat().st_size for path in SHIPPED.iterdir()) < 3e6


def test_weights_that_are_not_finite_answer_nothing(tmp_path: Path) -> None:
    weights = load_file(SHIPPED / WEIGHTS)
    weights["heads.motion.bias"][0] = float("nan")
    save_file(weights, tmp_path / WEIGHTS)
    (tmp_path / RECORD).write_bytes((SHIPPED / RECORD).read_bytes())
    with pytest.raises(MissingClassifierError, match=r"heads\.motion\.bias: 1 of "):
        load_classifier(tmp_path)
