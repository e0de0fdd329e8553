"""The classifier of drawn clips: what things there are, on which side, how they move and before what."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor, nn

from vdmini.finite import NotFiniteError, check_weights
from vdmini_bench.data.captions import MOTIONS
from vdmini_bench.data.synthetic import BACKGROUNDS, COLOURS, FRAMES, LENGTHS, SHAPES, SIZE
from vdmini_bench.metrics.semantic import Reading

SHIPPED = Path(__file__).parents[1] / "embedded" / "scene_classifier"
WEIGHTS, RECORD = "model.safetensors", "accuracy.json"
# The answers of each head, in the order of its logits.
HEADS: dict[str, tuple[str | None, ...]] = {
    "left_shape": (None, *SHAPES),
    "right_shape": (None, *SHAPES),
    "left_colour": (None, *COLOURS),
    "right_colour": (None, *COLOURS),
    "motion": tuple(MOTIONS),
    "background": tuple(BACKGROUNDS),
}
CLIPS_PER_BATCH = 32


class MissingClassifierError(RuntimeError):
    """The classifier is not part of this installation, or its files do not fit; the message says what to do."""


class SceneClassifier(nn.Module):
    """Convolutions over each frame, then over time too: B 3 10 32 32 in [-1, 1] to the logits of every head.

    Places are kept up to the last layer, as the sides of a pair are asked for.
    """

    def __init__(self) -> None:
        super().__init__()
        self.frames = nn.Sequential(_layer(3, 32, 1, 1), _layer(32, 48, 1, 2), _layer(48, 64, 1, 2))
        self.clips = nn.Sequential(_layer(64, 64, 3, 2), _layer(64, 96, 3, 2), nn.Flatten())
        self.summary = nn.Sequential(nn.Linear(96 * 3 * 2 * 2, 128), nn.SiLU())
        self.heads = nn.ModuleDict({name: nn.Linear(128, len(answers)) for name, answers in HEADS.items()})

    def forward(self, clips: Tensor) -> dict[str, Tensor]:
        """The logits B x answers of each head."""
        summary = self.summary(self.clips(self.frames(clips)))
        return {name: head(summary) for name, head in self.heads.items()}


def _layer(inputs: int, outputs: int, time: int, stride: int) -> nn.Module:
    """A 3x3 convolution, over `time` frames; where it reaches across frames it halves them too."""
    convolution = nn.Conv3d(
        inputs, outputs, (time, 3, 3), (stride if time > 1 else 1, stride, stride), (time // 2, 1, 1)
    )
    return nn.Sequential(convolution, nn.GroupNorm(8, outputs), nn.SiLU())


@dataclass(frozen=True)
class ShippedClassifier:
    """A trained classifier and the share of drawn clips that it gets right in each dimension."""

    network: SceneClassifier
    accuracy: dict[str, float]


def load_classifier(folder: Path = SHIPPED) -> ShippedClassifier:
    """The shipped classifier in eval mode.

    Raises:
        MissingClassifierError: its files are missing, or hold something else.
    """
    network = SceneClassifier()
    try:
        network.load_state_dict(load_file(folder / WEIGHTS))
        # The answer of logits that are not finite would be the first one.
        check_weights(network)
        accuracy = json.loads((folder / RECORD).read_text(encoding="utf-8"))["accuracy"]
    except FileNotFoundError as error:
        raise MissingClassifierError(
            f"the classifier of drawn clips is not part of this installation ({error.filename or folder} is missing):"
            " install a build that has it"
        ) from error
    except (RuntimeError, ValueError, KeyError, NotFiniteError) as error:
        raise MissingClassifierError(
            f"{folder} holds another classifier ({error}): install the package again"
        ) from error
    return ShippedClassifier(network.eval().requires_grad_(False), {name: float(accuracy[name]) for name in accuracy})


def to_network(clips: NDArray[np.uint8] | Tensor) -> Tensor:
    """Clips B T H W C uint8 RGB as the classifier takes them: B C T H W float32 in [-1, 1].

    Raises:
        ValueError: another size, layout or dtype than the drawn world's.
    """
    tensor = torch.as_tensor(clips)
    if tensor.dtype != torch.uint8 or tuple(tensor.shape[1:]) not in [(frames, SIZE, SIZE, 3) for frames in LENGTHS]:
        raise ValueError(
            f"clips are {tensor.dtype} of shape {tuple(tensor.shape)}: the classifier reads uint8 B {FRAMES} {SIZE}"
            f" {SIZE} 3, or one frame less"
        )
    return tensor.permute(0, 4, 1, 2, 3).float() / 127.5 - 1


@torch.inference_mode()
def read_clips(network: SceneClassifier, clips: NDArray[np.uint8] | Tensor) -> list[Reading]:
    """What the classifier sees in clips N T H W C uint8 RGB.

    Raises:
        ValueError: another size, layout or dtype than the drawn world's.
    """
    device = next(network.parameters()).device
    readings = []
    for start in range(0, len(clips), CLIPS_PER_BATCH):
        logits = network(to_network(clips[start : start + CLIPS_PER_BATCH]).to(device))
        answers = {name: logits[name].argmax(1).tolist() for name in HEADS}
        readings += [
            _reading({name: answers[name][place] for name in HEADS}) for place in range(len(answers["motion"]))
        ]
    return readings


def label_tensors(readings: Sequence[Reading]) -> dict[str, Tensor]:
    """The number of the right answer of each head, N int64."""
    said = [
        {
            "left_shape": reading.shapes[0],
            "right_shape": reading.shapes[1],
            "left_colour": reading.colours[0],
            "right_colour": reading.colours[1],
            "motion": reading.motion,
            "background": reading.background,
        }
        for reading in readings
    ]
    return {name: torch.tensor([answers.index(each[name]) for each in said]) for name, answers in HEADS.items()}


def _reading(numbers: dict[str, int]) -> Reading:
    said = {name: HEADS[name][number] for name, number in numbers.items()}
    return Reading(
        shapes=(said["left_shape"], said["right_shape"]),
        colours=(said["left_colour"], said["right_colour"]),
        motion=str(said["motion"]),
        background=str(said["background"]),
    )
