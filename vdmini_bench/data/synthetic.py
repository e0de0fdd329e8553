"""The embedded stand-in for UCF101: drawn clips with known content and known motion, written in UCF101's layout.

Every clip is a pure function of (class, group, index): one moving shape over a softly textured background seen by a
moving camera. Content (shape, colours, texture) and motion (action, speed, camera) are drawn independently, so that a
student may lose one and keep the other. They are stand-ins: no score on them compares with published UCF101 numbers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vdmini_bench.data.video import write_whole

WORLD_VERSION = 1
SIZE = 32
FRAMES = 10
# Causal VAEs make an odd number: all but the last frame, which shows what all of them do.
LENGTHS = (FRAMES - 1, FRAMES)
FRAMES_PER_SECOND = 7
GROUPS = 25
TEST_GROUPS = range(1, 8)

FloatArray = NDArray[np.float64]
Trajectory = Callable[[FloatArray, float], tuple[FloatArray, FloatArray, FloatArray, FloatArray]]

SHAPES = ("disc", "square", "triangle", "ring")
COLOURS = {
    "red": (214, 48, 49),
    "orange": (240, 147, 43),
    "yellow": (249, 217, 76),
    "green": (46, 174, 96),
    "blue": (45, 112, 214),
    "white": (240, 240, 240),
}
BACKGROUNDS = {
    "slate": ((52, 64, 84), (96, 110, 134)),
    "sand": ((150, 128, 98), (196, 176, 142)),
    "moss": ((52, 72, 54), (98, 120, 92)),
    "plum": ((78, 52, 84), (126, 98, 134)),
}
TEXTURES = ("gradient", "stripes", "checks")


# The verb of a caption, and (x offset, y offset, scale, rotation in radians) over time in [0, 1]; offsets in pixels.
ACTIONS: dict[str, tuple[str, Trajectory]] = {
    "Bounce": (
        "bounces",
        lambda t, speed: (4 * (t - 0.5), 5 - 12 * np.abs(np.sin(np.pi * 1.5 * speed * t)), 1 + 0 * t, 0 * t),
    ),
    "Fall": ("falls", lambda t, speed: (0 * t, 15 * speed * (t - 0.5), 1 + 0 * t, 0 * t)),
    "Grow": ("grows", lambda t, speed: (0 * t, 0 * t, 0.7 + 0.9 * speed * t, 0 * t)),
    "Orbit": (
        "circles",
        lambda t, speed: (
            7 * np.cos(2 * np.pi * 0.8 * speed * t), 7 * np.sin(2 * np.pi * 0.8 * speed * t), 1 + 0 * t, 0 * t,
        ),
    ),
    "Rise": ("rises", lambda t, speed: (0 * t, -15 * speed * (t - 0.5), 1 + 0 * t, 0 * t)),
    "Shrink": ("shrinks", lambda t, speed: (0 * t, 0 * t, 0.7 + 0.9 * speed * (1 - t), 0 * t)),
    "SlideLeft": ("slides left", lambda t, speed: (-15 * speed * (t - 0.5), 0 * t, 1 + 0 * t, 0 * t)),
    "SlideRight": ("slides right", lambda t, speed: (15 * speed * (t - 0.5), 0 * t, 1 + 0 * t, 0 * t)),
    "Spin": ("spins", lambda t, speed: (5 * np.sin(2 * np.pi * t), 0 * t, 1.15 + 0 * t, np.pi * 1.2 * speed * t)),
    "Sway": (
        "sways",
        lambda t, speed: (
            8 * np.sin(2 * np.pi * speed * t), 2 * t, 1 + 0 * t, 0.5 * np.sin(2 * np.pi * speed * t),
        ),
    ),
}  # fmt: skip


@dataclass(frozen=True)
class DrawnClip:
    """One drawn clip: `frames` T H W C uint8 RGB and the caption that describes it."""

    frames: NDArray[np.uint8]
    caption: str


def draw_clip(action: str, group: int, index: int, time: FloatArray | None = None) -> DrawnClip:
    """Draw clip `index` of `group` of class `action`: 10 frames of 32x32 RGB, the same on every call.

    `time` asks for the frames at other times than 10 from 0 to 1; it changes nothing else, and may go beyond them.
    """
    random = seeded_by(f"{WORLD_VERSION}/{action}/{group}/{index}")
    verb, trajectory = ACTIONS[action]
    shape = str(random.choice(SHAPES))
    colour = str(random.choice(list(COLOURS)))
    background = str(random.choice(list(BACKGROUNDS)))
    time = np.linspace(0.0, 1.0, FRAMES) if time is None else time
    speed = random.uniform(0.8, 1.2)
    offset_x, offset_y, scale, rotation = trajectory(time, speed)
    centre = random.uniform(SIZE / 2 - 3, SIZE / 2 + 3, size=2)
    radius = random.uniform(5.2, 6.8) * scale
    pan = random.uniform(-8.0, 8.0, size=2)
    texture = draw_background(random, background, time[:, None] * pan)
    rotation = rotation + random.uniform(0, 2 * np.pi)
    frames, _ = paint(texture, colour, shape, centre[0] + offset_x, centre[1] + offset_y, radius, rotation)
    caption = f"a {colour} {shape} {verb} over a {background} background"
    return DrawnClip(np.rint(frames).clip(0, 255).astype(np.uint8), caption)


def write_dataset(
    root: Path, train_per_group: int, test_per_group: int, on_clip: Callable[[], None] = lambda: None
) -> None:
    """Write the drawn data set under `root` in UCF101's layout: `UCF-101/`, `ucfTrainTestlist/` and `captions.csv`.

    Files that are there already are kept, so an interrupted call can be repeated.
    """
    train: list[str] = []
    test: list[str] = []
    captions = ["path,caption"]
    for number, action in enumerate(ACTIONS, start=1):
        for group in range(1, GROUPS + 1):
            held_out = group in TEST_GROUPS
            for index in range(1, (test_per_group if held_out else train_per_group) + 1):
                clip = draw_clip(action, group, index)
                relative = f"{action}/v_{action}_g{group:02d}_c{index:02d}.avi"
                path = root / "UCF-101" / relative
                if not path.exists():
                    write_whole(path, clip.frames, FRAMES_PER_SECOND)
                captions.append(f"{relative},{clip.caption}")
                (test if held_out else train).append(relative if held_out else f"{relative} {number}")
                on_clip()
    lists = root / "ucfTrainTestlist"
    lists.mkdir(parents=True, exist_ok=True)
    classes = [f"{number} {action}" for number, action in enumerate(ACTIONS, start=1)]
    for name, lines in (("classInd", classes), ("trainlist01", train), ("testlist01", test)):
        (lists / f"{name}.txt").write_text("\n".join(lines) + "\n")
    (root / "captions.csv").write_text("\n".join(captions) + "\n")


def clip_count(train_per_group: int, test_per_group: int) -> int:
    """How many clips `write_dataset` writes."""
    held_out = len(TEST_GROUPS)
    return len(ACTIONS) * (held_out * test_per_group + (GROUPS - held_out) * train_per_group)


def _pixel_grid() -> tuple[FloatArray, FloatArray]:
    rows, columns = np.meshgrid(np.arange(SIZE) + 0.5, np.arange(SIZE) + 0.5, indexing="ij")
    return columns, rows


def draw_background(random: np.random.Generator, name: str, camera: FloatArray) -> FloatArray:
    """Paint the background for each camera position: T H W C float64 in [0, 255]; `camera` is T x 2 in pixels."""
    dark, light = (np.asarray(colour, dtype=np.float64) for colour in BACKGROUNDS[name])
    texture = random.choice(TEXTURES)
    angle, phase = random.uniform(0, 2 * np.pi, size=2)
    wavelength = random.uniform(16.0, 24.0)
    columns, rows = _pixel_grid()
    x = columns[None] + camera[:, 0, None, None]
    y = rows[None] + camera[:, 1, None, None]
    along = np.cos(angle) * x + np.sin(angle) * y
    across = np.cos(angle) * y - np.sin(angle) * x
    if texture == "gradient":
        level = 0.5 + 0.5 * np.tanh((along - np.cos(angle) * SIZE / 2 - np.sin(angle) * SIZE / 2) / 12.0)
    elif texture == "stripes":
        level = 0.5 + 0.5 * np.sin(2 * np.pi * along / wavelength + phase)
    else:
        level = 0.5 + 0.5 * np.sin(2 * np.pi * along / wavelength + phase) * np.sin(2 * np.pi * across / wavelength)
    return dark + (light - dark) * level[..., None]


def paint(
    frames: FloatArray, colour: str, shape: str, x: FloatArray, y: FloatArray, radius: FloatArray, rotation: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Frames T H W C with a shape over them, and how much of each pixel it covers: T H W in [0, 1]."""
    # A soft edge of about two pixels: what a small VAE can carry, and no aliasing between frames.
    coverage = np.clip(0.5 - _signed_distance(shape, x, y, radius, rotation) / 2.0, 0.0, 1.0)
    ink = np.asarray(COLOURS[colour], dtype=np.float64)
    return frames * (1 - coverage[..., None]) + ink * coverage[..., None], coverage


def seeded_by(text: str) -> np.random.Generator:
    """A generator that the same text always starts alike."""
    return np.random.default_rng(int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little"))


def _signed_distance(shape: str, x: FloatArray, y: FloatArray, radius: FloatArray, rotation: FloatArray) -> FloatArray:
    """Distance in pixels from each pixel to the shape's edge, negative inside: T H W."""
    columns, rows = _pixel_grid()
    dx = columns[None] - x[:, None, None]
    dy = rows[None] - y[:, None, None]
    cosine, sine = np.cos(rotation)[:, None, None], np.sin(rotation)[:, None, None]
    u, v = cosine * dx + sine * dy, cosine * dy - sine * dx
    size = radius[:, None, None]
    if shape == "disc":
        return np.hypot(u, v) - size
    if shape == "ring":
        return np.abs(np.hypot(u, v) - 0.8 * size) - 0.32 * size
    if shape == "square":
        return np.maximum(np.abs(u), np.abs(v)) - 0.88 * size
    edges = [u * np.cos(turn) + v * np.sin(turn) for turn in (np.pi / 2, np.pi * 7 / 6, np.pi * 11 / 6)]
    return np.maximum.reduce(edges) - 0.62 * size
