"""What measures of clips notice: synthetic clips corrupted by severity, and every measure's answer to each.

A measure is worth trusting for a corruption when its values come in the order of the severities, and each step is
larger than chance. Synthetic clips are a stand-in for real ones.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from vdmini.files import replacing
from vdmini_bench.data.synthetic import ACTIONS, FRAMES, GROUPS, TEST_GROUPS, WORLD_VERSION, draw_clip
from vdmini_bench.errors import SuiteError
from vdmini_bench.metrics.content import SPECTRUM_VERSION, FrameFeatures
from vdmini_bench.metrics.flow import flow_fields
from vdmini_bench.metrics.frechet import Moments, frechet_distance_of_moments
from vdmini_bench.metrics.motion import MOTION_PAIR_VERSION
from vdmini_bench.metrics.motion_statistics import MOTION_VERSION, fields_to_statistics, motion_statistics
from vdmini_bench.results.stats import paired_interval
from vdmini_bench.studies.clip_pairs import MEASURES, ClipView, pair_values, view_clip
from vdmini_bench.studies.corruptions import (
    CORRUPTIONS,
    OVERSAMPLING,
    Clip,
    Corruption,
    at_speed,
    corrupt,
    footage_frames,
)
from vdmini_bench.system.files import key_of
from vdmini_bench.system.progress import progress

# Groups of drawn clips that no other list draws from: the study sees footage beyond the ends of a clip.
FIRST_INDEX = 9001
if TYPE_CHECKING:
    from torch import nn

Grade = tuple[str, float]
# The numbers that a measure's mean is of, by severity.
Numbers = dict[Grade, NDArray[np.float64]]


@dataclass(frozen=True)
class Study:
    """Drawn clips in blocks of equal size, and how many other ones the motion of sets is measured against."""

    clips_per_block: int
    blocks: int
    reference_clips: int

    def __post_init__(self) -> None:
        if self.clips_per_block < 2 or self.blocks < 2 or self.reference_clips < 2:
            raise SuiteError("a sensitivity study needs 2 or more blocks of 2 or more clips, and as many for reference")

    @property
    def clips(self) -> int:
        """How many clips are corrupted."""
        return self.clips_per_block * self.blocks

    def footage(self) -> list[Clip]:
        """The footage that clips are cut from, drawn alike for all actions, from the test groups."""
        length = footage_frames(FRAMES)
        # A clip runs from 0 to 1.
        time = 0.5 + (np.arange(length) - (length - 1) / 2) / (OVERSAMPLING * (FRAMES - 1))
        return [draw_clip(*name, time).frames for name in clip_names(TEST_GROUPS, self.clips)]

    def reference(self) -> list[Clip]:
        """Clips of the training groups."""
        groups = [group for group in range(1, GROUPS + 1) if group not in TEST_GROUPS]
        return [draw_clip(*name).frames for name in clip_names(groups, self.reference_clips)]


def clip_names(groups: Sequence[int], count: int, first_index: int = FIRST_INDEX) -> list[tuple[str, int, int]]:
    """What `draw_clip` takes: actions in turn, so that every block has all of them; a group again when all had theirs.

    Clips from another first index are other ones.
    """
    actions = [*ACTIONS]
    rounds = [divmod(number, len(actions)) for number in range(count)]
    return [(actions[index], groups[turn % len(groups)], first_index + turn // len(groups)) for turn, index in rounds]


@dataclass(frozen=True, eq=False)
class Answers:
    """What one severity does to all clips: statistics of motion N x 11, by measure N values of pairs, and I3D's logits.

    The logits N x 400 float32 are None where there was no network.
    """

    statistics: NDArray[np.float64]
    pairs: dict[str, NDArray[np.float64]]
    logits: NDArray[np.float32] | None

    def write(self, path: Path) -> None:
        """Keep them in a file."""
        logits = {} if self.logits is None else {"logits": self.logits}
        with replacing(path) as partial:
            save_file({"statistics": self.statistics, **self.pairs, **logits}, partial)

    @classmethod
    def read(cls, path: Path) -> Answers:
        """What `write` kept."""
        arrays = load_file(path)
        return cls(arrays.pop("statistics"), arrays, arrays.pop("logits", None))


@dataclass(frozen=True)
class Networks:
    """The networks that clips are seen through: I3D for FVD, and one for single frames."""

    video: nn.Module
    frames: FrameFeatures

    def logits(self, clips: Sequence[Clip]) -> NDArray[np.float32]:
        """I3D's logits N x 400 float32."""
        import torch

        from vdmini_bench.metrics.fvd import clips_to_features

        batches = (torch.from_numpy(np.ascontiguousarray(clip)).permute(0, 3, 1, 2)[None] for clip in clips)
        return clips_to_features(batches, self.video).numpy()

    @property
    def versions(self) -> list[str]:
        """What names the numbers of both."""
        from vdmini_bench.metrics.fvd import FVD_VERSION

        return [FVD_VERSION, self.frames.version]


def measure_study(study: Study, networks: Networks | None, folder: Path) -> dict[Grade, Answers]:
    """Corrupt and measure all clips, a file a severity in `folder`; what is there already is not measured again.

    Returns the answers by corruption and strength, ("none", 0.0) for clips as they are. Without networks there is
    neither FVD nor `content`, and all takes a minute.
    """
    footage = study.footage()
    whole = [at_speed(frames, 1.0, FRAMES) for frames in footage]
    severities = [
        ("none", 0.0),
        *((corruption.name, severity) for corruption in CORRUPTIONS for severity in corruption.severities),
    ]
    versions = [MOTION_VERSION, MOTION_PAIR_VERSION, SPECTRUM_VERSION]
    found = {}
    with progress("sensitivity", len(severities)) as advance:
        see = None if networks is None else networks.frames
        views = [view_clip(clip, flow_fields(clip), see) for clip in whole]
        for name, severity in severities:
            identity = [WORLD_VERSION, FIRST_INDEX, study.clips, *versions, f"{name}-{severity:g}"]
            identity += [] if networks is None else networks.versions
            path = folder / f"{name}-{severity:g}-{key_of(identity)}.safetensors"
            if not path.exists():
                clips = whole
                if name != "none":
                    clips = [corrupt(each, name, severity, FRAMES, seed) for seed, each in enumerate(footage)]
                _answers(clips, views, networks).write(path)
            found[name, severity] = Answers.read(path)
            advance(f"{name} {severity:g}")
    return found


def _answers(clips: Sequence[Clip], views: Sequence[ClipView], networks: Networks | None) -> Answers:
    flows = [flow_fields(clip) for clip in clips]
    see = None if networks is None else networks.frames
    corrupted = (view_clip(clip, flow, see) for clip, flow in zip(clips, flows, strict=True))
    values = [pair_values(view, other) for view, other in zip(views, corrupted, strict=True)]
    pairs = {name: np.array([each[name] for each in values]) for name in values[0]}
    logits = None if networks is None else networks.logits(clips)
    return Answers(np.stack([fields_to_statistics(flow) for flow in flows]), pairs, logits)


@dataclass(frozen=True)
class Ordering:
    """Whether a measure orders a corruption's severities; `weakest` is the step, in 95 % half-intervals, least sure.

    Above 1 every step from one severity to the next is shown to be in the same direction; negative steps turn back.
    """

    corruption: Corruption
    measure: str
    weakest: float

    @property
    def ordered(self) -> bool:
        """Every step is larger than its 95 % interval, in one direction."""
        return self.weakest > 1


def series(found: dict[Grade, Answers], study: Study) -> dict[str, Numbers]:
    """By measure and severity, the numbers that its mean is of: one a block for sets of clips, one a clip for pairs.

    FVD is against the reference of drawn clips that ships with the package.
    """
    moving = Moments.of(np.stack([motion_statistics(clip) for clip in study.reference()]))
    numbers: dict[str, Numbers] = {}
    logits = {severity: answers.logits for severity, answers in found.items() if answers.logits is not None}
    if logits:
        from vdmini_bench.metrics.reference import shipped_moments

        numbers["fvd"] = {severity: _by_block(rows, shipped_moments(), study) for severity, rows in logits.items()}
    numbers["frechet_motion"] = {
        severity: _by_block(answers.statistics, moving, study) for severity, answers in found.items()
    }
    # A file gives its arrays in another order.
    for name in (each.name for each in MEASURES if each.name in found["none", 0.0].pairs):
        numbers[name] = {severity: answers.pairs[name] for severity, answers in found.items()}
    return numbers


def _by_block(features: NDArray[Any], reference: Moments, study: Study) -> NDArray[np.float64]:
    blocks = np.split(features, study.blocks)
    return np.array([frechet_distance_of_moments(Moments.of(block), reference) for block in blocks])


def mean_with_error(values: NDArray[np.float64]) -> tuple[float, float]:
    """The mean of values with its standard error: over blocks for sets of clips, over clips for pairs."""
    return float(values.mean()), float(values.std(ddof=1)) / math.sqrt(len(values))


def ordering(corruption: Corruption, measure: str, numbers: Numbers) -> Ordering:
    """Whether a measure rises, or for signed ones falls, from whole clips through all severities of a corruption."""
    steps = [numbers["none", 0.0], *(numbers[corruption.name, severity] for severity in corruption.severities)]
    surely = []
    for mild, severe in pairwise(steps):
        mean, low, _ = paired_interval(mild.tolist(), severe.tolist())
        half = mean - low
        surely.append(mean / half if half else math.copysign(math.inf, mean) if mean else 0.0)
    signed = {each.name for each in MEASURES if not each.distance}
    falls = measure in signed and statistics.fmean(surely) < 0
    return Ordering(corruption, measure, min(-step if falls else step for step in surely))
