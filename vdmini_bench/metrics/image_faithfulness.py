"""Does an animated clip still show what its first frame showed? Exact answers for the drawn world.

The dimensions ask what VBench-I2V's of the same names ask (github.com/Vchitect/VBench, vbench2_beta_i2v), of another
world and of another judge: stand-ins, with which no published score compares.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from vdmini_bench.data.captions import Scene
from vdmini_bench.metrics.semantic import Reading

FAITHFULNESS_VERSION = "drawn-classifier-i2v-1"
# Where the classifier misses more of the drawn clips themselves, its answers say too little of generated ones.
FEWEST_RIGHT = 0.9


def _subject(scene: Scene, seen: Reading) -> bool:
    return (scene.things[0].shape, scene.things[0].colour) in zip(seen.shapes, seen.colours, strict=True)


def _background(scene: Scene, seen: Reading) -> bool:
    return scene.background == seen.background


DIMENSIONS: Mapping[str, Callable[[Scene, Reading], bool]] = {
    "embedded-i2v_subject": _subject,
    "embedded-i2v_background": _background,
}


def faithful(dimension: str, asked: Sequence[Scene], seen: Sequence[Reading]) -> list[bool]:
    """Whether each clip shows the thing, or the background, that its first frame had.

    Raises ValueError for an unknown dimension, or where there is not a reading for each scene.
    """
    if dimension not in DIMENSIONS:
        raise ValueError(f"unknown dimension {dimension!r}: choose one of {', '.join(DIMENSIONS)}")
    return [DIMENSIONS[dimension](scene, reading) for scene, reading in zip(asked, seen, strict=True)]
