"""What each block of a transformer carries: content and motion read from its clips, block by block, step by step.

Two experiments. *Removal*: a block hands on what it was given; what do clips lose? *Patching*: of two clips of one seed
whose captions differ in one factor alone, a block of the second adds what it adds in the first (activation patching,
Meng et al. 2022, arXiv 2202.05262); does the second show the first one's factor?

Content and motion are read from the clip by the drawn world's classifier and are on one scale: the share of what the
whole model gets right beyond chance. `docs/results/depth.md` says what was expected before anything was measured.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from vdmini.importance import Clips, bypassed
from vdmini.models.registry import family_of
from vdmini.requests import ClipRequest
from vdmini_bench.config.depth import DepthStudy
from vdmini_bench.data.captions import MOTIONS, Scene, Thing, choose_scenes
from vdmini_bench.data.synthetic import COLOURS, SHAPES, seeded_by
from vdmini_bench.errors import BenchError
from vdmini_bench.metrics.scene_classifier import load_classifier, read_clips
from vdmini_bench.metrics.semantic import Reading
from vdmini_bench.models.source import load_for_use
from vdmini_bench.studies.importance import Study, open_folder, sample_study
from vdmini_bench.system.files import write_atomically
from vdmini_bench.system.progress import progress

Factor = Literal["content", "motion"]
Experiment = Literal["removal", "patching"]
FACTORS: tuple[Factor, ...] = ("content", "motion")
# How often a guess is right: of the thing's shape and colour together, and of the motion.
CHANCE: dict[Factor, float] = {"content": 1 / (len(SHAPES) * len(COLOURS)), "motion": 1 / len(MOTIONS)}
# The steps in which a block is removed or patched, as a range of the share of steps done.
PHASES = {"all": (0.0, 1.0), "first third": (0.0, 1 / 3), "second third": (1 / 3, 2 / 3), "last third": (2 / 3, 1.0)}
# Beyond the scenes that training and scoring draw.
FIRST_SCENE = 5_000_000
VERSION = 1
# Of a whole model, below which shares of it are noise.
LEAST_MARGIN = 0.2


@dataclass(frozen=True)
class Effect:
    """What one block carries of a factor in some of the steps, as a share of the whole model's margin over chance.

    Of a removal: how much of that margin is lost. Of a patch: how much of it the first clip's factor gains. `depth` is
    the block's place from 0 to 1, and `clips` how many were read.
    """

    experiment: Experiment
    factor: Factor
    block: str
    depth: float
    phase: str
    value: float
    clips: int


def scenes_to_remove_from(count: int) -> list[Scene]:
    """Scenes of one thing, of combinations that training drew."""
    return choose_scenes(count, "train", things=1, skip=FIRST_SCENE)


def scenes_to_patch(count: int, factor: Factor) -> list[tuple[Scene, Scene]]:
    """Pairs of scenes that differ in one factor alone: in both shape and colour, or in the motion."""
    random = seeded_by(f"depth/{factor}")

    def other(names: Sequence[str], own: str) -> str:
        return str(random.choice([name for name in names if name != own]))

    pairs = []
    for first in choose_scenes(count, "train", things=1, skip=FIRST_SCENE + count):
        second = first
        while second == first or second.held_out:
            (thing,) = first.things
            if factor == "motion":
                second = replace(first, motion=other([*MOTIONS], first.motion))
            else:
                changed = Thing(other([*COLOURS], thing.colour), other(SHAPES, thing.shape), thing.size)
                second = replace(first, things=(changed,))
        pairs.append((first, second))
    return pairs


def shows(factor: Factor, scenes: Sequence[Scene], seen: Sequence[Reading]) -> NDArray[np.bool_]:
    """Whether each clip shows its scene's factor: N."""
    pairs = zip(map(Reading.of, scenes), seen, strict=True)
    if factor == "motion":
        return np.array([asked.motion == found.motion for asked, found in pairs])
    return np.array([(asked.shapes, asked.colours) == (found.shapes, found.colours) for asked, found in pairs])


def measure_teachers(asked: DepthStudy, folder: Path, device: str | None) -> dict[str, list[Effect]]:
    """Remove and patch every block of each teacher.

    Each block's effects are written to `folder` when measured and never measured twice.

    Raises:
        ModelLoadError: a teacher cannot be loaded.
        SuiteError: the folder holds another study.
        BenchError: a teacher cannot sample so, or shows no more than chance of what its captions ask for.
    """
    found = {}
    for number, teacher in enumerate(asked.teachers):
        study = Study(load_for_use(teacher, device=device), (), asked.settings, asked.sample.batch_size)
        place = folder / "teachers" / str(number)
        open_folder(place, study.identity() | {"clips": asked.clips, "pairs": asked.pairs, "version": VERSION})
        found[teacher] = measure_depth(study, asked.clips, asked.pairs, place)
    return found


def measure_depth(study: Study, clips: int, pairs: int, folder: Path) -> list[Effect]:
    """The effects of every block of a study's model, by experiment; raises BenchError where it cannot sample."""
    experiments: list[tuple[Experiment, Removal | Patching]] = [
        ("removal", Removal(study, clips)), ("patching", Patching(study, pairs)),
    ]  # fmt: skip
    blocks = study.model.blocks.prunable
    found: list[Effect] = []
    with progress("depth", len(blocks) * len(PHASES) * len(experiments)) as advance:
        for (experiment, measured), block, phase in product(experiments, blocks, PHASES):
            path = folder / "rows" / f"{experiment}-{block}-{phase.replace(' ', '-')}.json"
            if not path.exists():
                rows = [asdict(effect) for effect in measured.effects(block, phase)]
                write_atomically(path, json.dumps(rows, allow_nan=False) + "\n")
            found += [Effect(**row) for row in json.loads(path.read_text())]
            advance()
    return found


class Removal:
    """One block at a time hands on what it was given."""

    def __init__(self, study: Study, clips: int) -> None:
        self.scenes = scenes_to_remove_from(clips)
        self.study = _asked(study, self.scenes)
        self.reader = load_classifier().network
        self.whole: dict[Factor, float] | None = None

    def effects(self, block: str, phase: str) -> list[Effect]:
        """The share of the whole model's margin that its clips lose without the block in a phase's steps."""
        if self.whole is None:
            self.whole = self._right()
            for factor in FACTORS:
                _require_margin(factor, self.whole[factor], CHANCE[factor])
        denoiser = self.study.model.denoiser
        with during(denoiser, self.study.settings.steps, PHASES[phase]) as active, bypassed(denoiser, block, active):
            left = self._right()
        return [
            Effect(
                "removal", factor, block, _depth(self.study, block), phase,
                (self.whole[factor] - left[factor]) / (self.whole[factor] - CHANCE[factor]), len(self.scenes),
            )
            for factor in FACTORS
        ]  # fmt: skip

    def _right(self) -> dict[Factor, float]:
        seen = read_clips(self.reader, _sampled(self.study))
        return {factor: float(shows(factor, self.scenes, seen).mean()) for factor in FACTORS}


class Patching:
    """One block at a time adds to the second clip of a pair what it adds to the first."""

    def __init__(self, study: Study, pairs: int) -> None:
        self.pairs = {factor: scenes_to_patch(pairs, factor) for factor in FACTORS}
        self.study = study
        self.reader = load_classifier().network
        self.apart: dict[Factor, tuple[float, float]] = {}

    def effects(self, block: str, phase: str) -> list[Effect]:
        """The share of pairs whose second clip turns to show the first one's factor, of those that could."""
        found = []
        for factor in FACTORS:
            if factor not in self.apart:
                self.apart[factor] = self._first_shown(factor)
                _require_margin(factor, *self.apart[factor])
            own, unpatched = self.apart[factor]
            denoiser = self.study.model.denoiser
            with during(denoiser, self.study.settings.steps, PHASES[phase]) as active, patched(denoiser, block, active):
                _, turned = self._first_shown(factor)
            value = (turned - unpatched) / (own - unpatched)
            found.append(
                Effect("patching", factor, block, _depth(self.study, block), phase, value, len(self.pairs[factor]))
            )
        return found

    def _first_shown(self, factor: Factor) -> tuple[float, float]:
        """How often the first and the second clips of the pairs show the first scene's factor."""
        half = self.study.batch_size // 2
        shown: list[NDArray[np.bool_]] = []
        for start in range(0, len(self.pairs[factor]), half):
            first, second = zip(*self.pairs[factor][start : start + half], strict=True)
            # A pair shares its seed; a patch goes from the first half of a batch to the second.
            seen = read_clips(
                self.reader, _sampled(_asked(self.study, [*first, *second], seeds=range(start, start + len(first))))
            )
            shown.append(shows(factor, [*first, *first], seen).reshape(2, -1))
        own, other = np.concatenate(shown, axis=1).mean(axis=1)
        return float(own), float(other)


@contextmanager
def during(denoiser: nn.Module, steps: int, share: tuple[float, float]) -> Iterator[Callable[[], bool]]:
    """Whether a denoiser that runs through `steps` noise levels, from the highest down, is in a share of them now."""
    seen: list[float] = []

    def note(module: nn.Module, inputs: object, named: Mapping[str, Any]) -> None:
        level = float(named["timestep"].flatten()[0])
        if seen and level > seen[-1]:
            seen.clear()
        if not seen or level < seen[-1]:
            seen.append(level)

    handle = denoiser.register_forward_pre_hook(note, with_kwargs=True)
    try:
        yield lambda: share[0] * steps <= len(seen) - 1 < share[1] * steps
    finally:
        handle.remove()


@contextmanager
def patched(denoiser: nn.Module, block: str, active: Callable[[], bool]) -> Iterator[None]:
    """Let a block add to the second half of a batch what it adds to the first half, where `active` says so."""
    (module,) = family_of(denoiser).block_modules(denoiser)[block]

    def patch(module: nn.Module, inputs: tuple[Any, ...], named: Mapping[str, Any], output: Any) -> object:
        if not active():
            return output
        if isinstance(output, tuple):
            raise ValueError(f"block {block} updates two streams, of which none can be patched alone")
        given: Tensor = inputs[0] if inputs else named["hidden_states"]
        half = len(output) // 2
        patched = output.clone()
        patched[half:] = given[half:] + (output[:half] - given[:half])
        return patched

    with ExitStack() as stack:
        stack.callback(module.register_forward_hook(patch, with_kwargs=True).remove)
        yield


def _asked(study: Study, scenes: Sequence[Scene], seeds: Sequence[int] | None = None) -> Study:
    """A study of the scenes' captions, each with its place as seed, or with `seeds` over and over."""
    places = range(len(scenes)) if seeds is None else [*seeds] * (len(scenes) // len(seeds))
    requests = [
        ClipRequest(f"{place:05d}", seed, prompt=scene.caption)
        for place, (seed, scene) in enumerate(zip(places, scenes, strict=True))
    ]
    return replace(study, requests=requests)


def _sampled(study: Study) -> Clips:
    return sample_study(study, study.model.denoiser)


def _require_margin(factor: Factor, right: float, chance: float) -> None:
    if right - chance < LEAST_MARGIN:
        raise BenchError(
            f"the whole model shows the {factor} that its captions ask for in {right:.0%} of its clips, chance being"
            f" {chance:.0%}: no share of that can be measured; train it further"
        )


def _depth(study: Study, block: str) -> float:
    names = [*study.model.blocks.prunable]
    return names.index(block) / (len(names) - 1)
