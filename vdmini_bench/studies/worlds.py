"""What captions ask for and how clips are read; the drawn world, by its classifier."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Generic, Literal, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from vdmini.importance import Clips
from vdmini_bench.data.captions import MOTIONS, Scene, Thing, choose_scenes
from vdmini_bench.data.synthetic import COLOURS, SHAPES, seeded_by
from vdmini_bench.metrics.scene_classifier import SceneClassifier, load_classifier, read_clips
from vdmini_bench.metrics.semantic import Reading

Factor = Literal["content", "motion"]
FACTORS: tuple[Factor, ...] = ("content", "motion")
# Beyond the scenes that training and scoring draw.
FIRST_SCENE = 5_000_000


class Asked(Protocol):
    """What one clip is to show."""

    @property
    def caption(self) -> str:
        """The prompt."""


A = TypeVar("A", bound=Asked)


class World(ABC, Generic[A]):
    """Clips with a content and a motion that can be read."""

    # How often a guess is right.
    chance: Mapping[Factor, float]

    @abstractmethod
    def scenes(self, count: int, skip: int = 0) -> list[A]:
        """What clips are to show, from the place `skip` on of one endless list."""

    @abstractmethod
    def changed(self, scene: A, factor: Factor, random: np.random.Generator) -> A:
        """A scene that differs from another one in one factor alone."""

    @abstractmethod
    def shows(self, factor: Factor, scenes: Sequence[A], clips: Clips) -> NDArray[np.bool_]:
        """Whether each clip of N T H W C uint8 RGB shows its scene's factor: N."""

    def pairs(self, count: int, factor: Factor, skip: int = 0) -> list[tuple[A, A]]:
        """Pairs of scenes that differ in one factor alone."""
        random = seeded_by(f"depth/{factor}/{skip}")
        return [(first, self.changed(first, factor, random)) for first in self.scenes(count, skip)]


class DrawnWorld(World[Scene]):
    """Scenes of one thing of the drawn world, of combinations that training drew."""

    chance: Mapping[Factor, float] = {"content": 1 / (len(SHAPES) * len(COLOURS)), "motion": 1 / len(MOTIONS)}

    def scenes(self, count: int, skip: int = 0) -> list[Scene]:
        return choose_scenes(count, "train", things=1, skip=FIRST_SCENE + skip)

    def changed(self, scene: Scene, factor: Factor, random: np.random.Generator) -> Scene:
        """Another motion, or both another shape and another colour."""
        (thing,) = scene.things
        second = scene
        while second == scene or second.held_out:
            if factor == "motion":
                second = replace(scene, motion=other_than(random, [*MOTIONS], scene.motion))
            else:
                colour, shape = other_than(random, [*COLOURS], thing.colour), other_than(random, SHAPES, thing.shape)
                second = replace(scene, things=(Thing(colour, shape, thing.size),))
        return second

    def shows(self, factor: Factor, scenes: Sequence[Scene], clips: Clips) -> NDArray[np.bool_]:
        seen = read_clips(self._classifier, clips)
        pairs = zip(map(Reading.of, scenes), seen, strict=True)
        if factor == "motion":
            return np.array([asked.motion == found.motion for asked, found in pairs])
        return np.array([(asked.shapes, asked.colours) == (found.shapes, found.colours) for asked, found in pairs])

    @cached_property
    def _classifier(self) -> SceneClassifier:
        return load_classifier().network


def other_than(random: np.random.Generator, names: Sequence[str], own: str) -> str:
    """Another one of some names."""
    return str(random.choice([name for name in names if name != own]))
