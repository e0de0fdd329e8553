"""The drawn world in words: scenes of up to two things, an English sentence for each, and the clips they describe.

A clip is a pure function of its scene and a seed. What the sentence does not say (texture, camera, place, speed, exact
size, turn) is drawn by the seed. As in `synthetic`, whose pictures these share, no score on them compares with a
published one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from vdmini_bench.data.synthetic import (
    ACTIONS,
    BACKGROUNDS,
    COLOURS,
    FRAMES,
    SHAPES,
    SIZE,
    DrawnClip,
    FloatArray,
    Trajectory,
    draw_background,
    paint,
    seeded_by,
)

CAPTIONED_VERSION = 1
Side = Literal["left", "right"]
Split = Literal["train", "held-out", "any"]


REST = "Rest"
# Rest is what a classifier must be able to answer of a clip in which nothing moves but the camera.
MOTIONS: dict[str, tuple[str, Trajectory]] = {
    **ACTIONS,
    REST: ("rests", lambda t, speed: (0 * t, 0 * t, 1 + 0 * t, 0 * t)),
}
# Those that leave the left thing on the left.
PAIR_MOTIONS = ("Bounce", "Fall", "Grow", "Rest", "Rise", "Shrink")
# Radii in pixels; things of a pair are smaller, so that both fit, and their size goes unsaid.
RADII = {"": (5.2, 6.0), "small": (3.8, 4.6), "large": (6.8, 7.6)}
PAIR_RADII = (4.0, 4.8)
PAIR_CENTRES = (8.5, 23.5)

# Never drawn for training: each word is known from other combinations, so these ask for composition.
HELD_OUT_THINGS = frozenset({("red", "disc"), ("white", "square"), ("blue", "triangle"), ("green", "ring")})
HELD_OUT_SETTINGS = frozenset({("Bounce", "slate"), ("Grow", "sand"), ("SlideLeft", "moss"), ("Rise", "plum")})


@dataclass(frozen=True)
class Thing:
    """One thing of a scene; `size` is "small", "large" or "" for neither."""

    colour: str
    shape: str
    size: str = ""

    def __post_init__(self) -> None:
        for kind, name, known in (
            ("colour", self.colour, tuple(COLOURS)),
            ("shape", self.shape, SHAPES),
            ("size", self.size, tuple(RADII)),
        ):
            if name not in known:
                raise ValueError(f"unknown {kind} {name!r}: choose one of {', '.join(map(repr, known))}")

    @property
    def words(self) -> str:
        """The thing with its article, as in "an orange disc"."""
        words = " ".join(filter(None, (self.size, self.colour, self.shape)))
        return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


@dataclass(frozen=True)
class Scene:
    """What a clip shows: none to two things, their motion and the background.

    `relation` says where the first of two things is seen from the second; it is None for fewer. Raises ValueError for
    names that are not drawn, for a pair of one colour or one shape, which no side could be told by, for a pair with
    sizes or with a motion that would swap sides, and for an empty scene that moves.
    """

    things: tuple[Thing, ...]
    motion: str
    background: str
    relation: Side | None = None

    def __post_init__(self) -> None:
        for kind, name, known in (("motion", self.motion, MOTIONS), ("background", self.background, BACKGROUNDS)):
            if name not in known:
                raise ValueError(f"unknown {kind} {name!r}: choose one of {', '.join(known)}")
        if len(self.things) > 2:
            raise ValueError(f"{len(self.things)} things: a scene holds 2 at most")
        if self.relation not in (get_args(Side) if len(self.things) == 2 else (None,)):
            raise ValueError(f"relation {self.relation!r}: say 'left' or 'right' for two things and None for fewer")
        if not self.things and self.motion != REST:
            raise ValueError(f"motion {self.motion!r} of no thing: use {REST!r}")
        if len(self.things) == 2:
            self._check_pair(*self.things)

    def _check_pair(self, first: Thing, second: Thing) -> None:
        if first.colour == second.colour or first.shape == second.shape or first.size or second.size:
            raise ValueError(f"{first.words} and {second.words}: a pair differs in colour and shape and has no size")
        if self.motion not in PAIR_MOTIONS:
            raise ValueError(f"motion {self.motion!r} of a pair: choose one of {', '.join(PAIR_MOTIONS)}")

    @property
    def caption(self) -> str:
        """The sentence of the scene, which `parse_caption` reads back."""
        place = f"a {self.background} background"
        if not self.things:
            return place
        verb = MOTIONS[self.motion][0]
        if len(self.things) == 1:
            return f"{self.things[0].words} {verb} over {place}"
        first, second = self.things
        return f"{first.words} is {self.relation} of {second.words} and both {verb.removesuffix('s')} over {place}"

    @property
    def from_left(self) -> tuple[Thing, ...]:
        """The things in the order they stand in the picture."""
        return self.things[::-1] if self.relation == "right" else self.things

    @property
    def held_out(self) -> bool:
        """Whether it holds a combination that is never drawn for training."""
        return (self.motion, self.background) in HELD_OUT_SETTINGS or any(
            (thing.colour, thing.shape) in HELD_OUT_THINGS for thing in self.things
        )


def _choice(names: Sequence[str], group: str) -> str:
    return f"(?P<{group}>{'|'.join(names)})"


def _thing_pattern(number: int) -> str:
    sizes = [size for size in RADII if size]
    colour, shape = _choice([*COLOURS], f"colour{number}"), _choice(SHAPES, f"shape{number}")
    return rf"an? (?:{_choice(sizes, f'size{number}')} )?{colour} {shape}"


_VERBS = {verb: name for name, (verb, _) in MOTIONS.items()}
_PAIR_VERBS = {MOTIONS[name][0].removesuffix("s"): name for name in PAIR_MOTIONS}
_PLACE = rf"an? {_choice([*BACKGROUNDS], 'background')} background"
_SENTENCES = (
    re.compile(_PLACE),
    re.compile(rf"{_thing_pattern(0)} {_choice([*_VERBS], 'verb')} over {_PLACE}"),
    re.compile(
        rf"{_thing_pattern(0)} is {_choice(get_args(Side), 'relation')} of {_thing_pattern(1)} and both"
        rf" {_choice([*_PAIR_VERBS], 'verb')} over {_PLACE}"
    ),
)


def parse_caption(caption: str) -> Scene:
    """The scene that a sentence describes; raises ValueError where it is none of the drawn world's."""
    words = " ".join(caption.lower().split()).removesuffix(".")
    for count, sentence in enumerate(_SENTENCES):
        found = sentence.fullmatch(words)
        if found is None:
            continue
        said = {name: value or "" for name, value in found.groupdict().items()}
        things = tuple(
            Thing(said[f"colour{number}"], said[f"shape{number}"], said[f"size{number}"]) for number in range(count)
        )
        motion = REST if not count else {**_VERBS, **_PAIR_VERBS}[said["verb"]]
        relation: Side | None = None if count < 2 else "left" if said["relation"] == "left" else "right"
        return Scene(things, motion, said["background"], relation)
    raise ValueError(
        f"{caption!r} is no sentence of the drawn world: write it as in 'a red disc bounces over a moss background' or"
        " 'a red disc is left of a blue ring and both rise over a moss background'"
    )


def draw_scene(scene: Scene, seed: int, *, upright: bool = False) -> DrawnClip:
    """Draw a scene: 10 frames of 32x32 RGB at 7 frames a second, the same on every call.

    With `upright` the things are turned by their motion alone, not by the seed.
    """
    frames, _ = _draw(scene, seed, upright)
    return DrawnClip(np.rint(frames).clip(0, 255).astype(np.uint8), scene.caption)


def covered_places(scene: Scene, seed: int, *, upright: bool = False) -> NDArray[np.bool_]:
    """Where the clip of `draw_scene` shows a thing at any time: H W."""
    _, covered = _draw(scene, seed, upright)
    return covered.max(axis=0) > 0


def _draw(scene: Scene, seed: int, upright: bool) -> tuple[FloatArray, FloatArray]:
    """Frames T H W C in [0, 255] and how much of each pixel things cover, T H W in [0, 1]."""
    random = _generator(f"{scene.caption}/{seed}")
    time = np.linspace(0.0, 1.0, FRAMES)
    pan = random.uniform(-8.0, 8.0, size=2)
    frames = draw_background(random, scene.background, time[:, None] * pan)
    trajectory = MOTIONS[scene.motion][1]
    covered = np.zeros(frames.shape[:-1])
    things = scene.from_left
    for place, thing in enumerate(things):
        offset_x, offset_y, scale, rotation = trajectory(time, random.uniform(0.8, 1.2))
        x, y = random.uniform(SIZE / 2 - 3, SIZE / 2 + 3, size=2)
        if len(things) == 2:
            x = PAIR_CENTRES[place] + random.uniform(-1.0, 1.0)
        radius = random.uniform(*(PAIR_RADII if len(things) == 2 else RADII[thing.size])) * scale
        turn = random.uniform(0, 2 * np.pi)
        rotation = rotation if upright else rotation + turn
        frames, coverage = paint(frames, thing.colour, thing.shape, x + offset_x, y + offset_y, radius, rotation)
        covered = np.maximum(covered, coverage)
    return frames, covered


def draw_scenes(scenes: Sequence[Scene], first_seed: int) -> NDArray[np.uint8]:
    """Draw each scene with a seed of its own: N T H W C uint8."""
    return np.stack([draw_scene(scene, first_seed + place).frames for place, scene in enumerate(scenes)])


def choose_scenes(count: int, split: Split, things: int | None = None, skip: int = 0) -> list[Scene]:
    """The first `count` scenes after `skip` ones of an endless list, the same on every call, all of one split.

    "train" has no combination that is held out, "held-out" has one in each scene. `things` None mixes scenes of no
    thing, one and two. Raises ValueError for held-out scenes of no thing, of which there are none.
    """
    if things == 0 and split == "held-out":
        raise ValueError("a scene of no thing combines nothing: choose another split")
    return [_choose_scene(_generator(f"{split}/{things}/{skip + place}"), split, things) for place in range(count)]


def _choose_scene(random: np.random.Generator, split: Split, things: int | None) -> Scene:
    while True:
        scene = _random_scene(random, int(random.choice(3, p=(0.03, 0.52, 0.45))) if things is None else things)
        if split == "any" or scene.held_out == (split == "held-out"):
            return scene


def _random_scene(random: np.random.Generator, count: int) -> Scene:
    background = str(random.choice([*BACKGROUNDS]))
    colours = [str(colour) for colour in random.choice([*COLOURS], size=count, replace=False)]
    shapes = [str(shape) for shape in random.choice(SHAPES, size=count, replace=False)]
    if count == 0:
        return Scene((), REST, background)
    if count == 1:
        motion = str(random.choice([*MOTIONS]))
        return Scene((Thing(colours[0], shapes[0], str(random.choice([*RADII]))),), motion, background)
    pair = tuple(Thing(colour, shape) for colour, shape in zip(colours, shapes, strict=True))
    relation: Side = "left" if random.random() < 0.5 else "right"
    return Scene(pair, str(random.choice(PAIR_MOTIONS)), background, relation)


def _generator(text: str) -> np.random.Generator:
    return seeded_by(f"captioned {CAPTIONED_VERSION}/{text}")
