"""Does a clip show what its caption says? Exact answers for the drawn world, whose every clip is known.

The dimensions ask what VBench's of the same names ask (arXiv 2311.17982, section 3.2), of another world and of another
judge: a classifier trained on drawn clips. They are stand-ins, and no published score compares with them. What the
classifier gets right on drawn clips themselves stands beside each score: it is the most that a perfect model reaches.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from vdmini_bench.data.captions import Scene

SEMANTIC_VERSION = "drawn-classifier-1"
LABEL = "stand-in: drawn world, judged by a classifier trained on it"


@dataclass(frozen=True)
class Reading:
    """What a classifier sees in a clip: shapes and colours from left to right, None where there is no thing."""

    shapes: tuple[str | None, str | None]
    colours: tuple[str | None, str | None]
    motion: str
    background: str

    @classmethod
    def of(cls, scene: Scene) -> Reading:
        """What a classifier without fault sees in a clip of the scene."""
        left, right = (*scene.from_left, None, None)[:2]
        return cls(
            shapes=(left.shape if left else None, right.shape if right else None),
            colours=(left.colour if left else None, right.colour if right else None),
            motion=scene.motion,
            background=scene.background,
        )


@dataclass(frozen=True)
class SemanticScore:
    """The share of clips that show what was asked, None where no caption asked for it.

    `classifier_accuracy` is the same share of drawn clips, which all show it.
    """

    dimension: str
    value: float | None
    standard_error: float | None
    n: int
    classifier_accuracy: float
    version: str = SEMANTIC_VERSION
    label: str = LABEL

    def __str__(self) -> str:
        value = "no clips" if self.value is None else f"{self.value:.3f} ± {self.standard_error:.3f} of {self.n}"
        return f"{self.dimension}: {value} ({self.label}; on drawn clips {self.classifier_accuracy:.3f})"


Shows = Callable[[Scene, Reading], bool]
# Each with the number of things in the captions it is asked of, None for any.
DIMENSIONS: dict[str, tuple[int | None, Shows]] = {
    "embedded-object_class": (1, lambda scene, seen: scene.things[0].shape in seen.shapes),
    "embedded-multiple_objects": (2, lambda scene, seen: {thing.shape for thing in scene.things} == {*seen.shapes}),
    "embedded-color": (
        1,
        lambda scene, seen: (
            (scene.things[0].shape, scene.things[0].colour) in zip(seen.shapes, seen.colours, strict=True)
        ),
    ),
    "embedded-human_action": (1, lambda scene, seen: scene.motion == seen.motion),
    "embedded-spatial_relationship": (
        2,
        lambda scene, seen: tuple(thing.shape for thing in scene.from_left) == seen.shapes,
    ),
    "embedded-scene": (None, lambda scene, seen: scene.background == seen.background),
}
# What VBench-I2V asks (github.com/Vchitect/VBench, vbench2_beta_i2v): does a clip still show the thing, and the
# background, that its first frame had?
FAITHFULNESS_VERSION = "drawn-classifier-i2v-1"
FAITHFULNESS: dict[str, tuple[int | None, Shows]] = {
    "embedded-i2v_subject": (None, DIMENSIONS["embedded-color"][1]),
    "embedded-i2v_background": DIMENSIONS["embedded-scene"],
}
# Where the classifier misses more of the drawn clips themselves, its answers say too little of generated ones.
FEWEST_RIGHT = 0.9


def clip_marks(dimension: str, asked: Sequence[Scene], seen: Sequence[Reading]) -> list[bool]:
    """Whether each clip shows what its caption says, for the clips whose captions say anything of the dimension.

    A color counts on the right object alone. VBench leaves clips without the object out of `color` and weighs
    `spatial_relationship` by overlap; here every clip that is asked for counts, with 0 or 1.

    Raises:
        ValueError: an unknown dimension, or not a reading for each scene.
    """
    known = DIMENSIONS | FAITHFULNESS
    if dimension not in known:
        raise ValueError(f"unknown dimension {dimension!r}: choose one of {', '.join(known)}")
    if len(asked) != len(seen):
        raise ValueError(f"{len(seen)} readings of {len(asked)} scenes: give one for each, in the same order")
    things, shows = known[dimension]
    return [
        shows(scene, reading)
        for scene, reading in zip(asked, seen, strict=True)
        if things is None or len(scene.things) == things
    ]


def semantic_scores(
    asked: Sequence[Scene], seen: Sequence[Reading], classifier_accuracy: Mapping[str, float]
) -> list[SemanticScore]:
    """Score clips by what was asked for and what a classifier saw, in every dimension.

    The standard error is that of a share of independent clips. Raises ValueError as `clip_marks` does, and for a
    dimension without a known accuracy.
    """
    missing = [dimension for dimension in DIMENSIONS if dimension not in classifier_accuracy]
    if missing:
        raise ValueError(f"the classifier's accuracy is unknown in {', '.join(missing)}: measure it on drawn clips")
    scores = []
    for dimension in DIMENSIONS:
        marks = clip_marks(dimension, asked, seen)
        value = sum(marks) / len(marks) if marks else None
        error = None if value is None else math.sqrt(value * (1 - value) / len(marks))
        scores.append(SemanticScore(dimension, value, error, len(marks), classifier_accuracy[dimension]))
    return scores


def mean_shares(asked: Sequence[Scene], seen: Sequence[Reading]) -> dict[str, float]:
    """The share of clips that show what was asked in each dimension: of drawn clips, the classifier's accuracy.

    Raises ValueError as `clip_marks` does, and where no scene asks for a dimension.
    """
    shares = {}
    for dimension in DIMENSIONS:
        marks = clip_marks(dimension, asked, seen)
        if not marks:
            raise ValueError(f"no scene asks for {dimension}: give scenes of one thing and of two")
        shares[dimension] = sum(marks) / len(marks)
    return shares
