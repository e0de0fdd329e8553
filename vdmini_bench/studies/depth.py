"""What each block of a transformer carries: content and motion read from its clips, block by block, step by step.

Two experiments. *Removal*: a block hands on what it was given; what do clips lose? *Patching*: of two clips of one seed
whose captions differ in one factor alone, a block of the second adds what it adds in the first (activation patching,
Meng et al. 2022, arXiv 2202.05262); does the second show the first one's factor?

Content and motion are read from the clip (`vdmini_bench.studies.worlds`) and are on one scale: the share of what the
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
from vdmini_bench.errors import BenchError
from vdmini_bench.models.source import load_for_use
from vdmini_bench.studies.importance import Study, open_folder, sample_study
from vdmini_bench.studies.worlds import FACTORS, Asked, DrawnWorld, Factor, World
from vdmini_bench.system.files import write_atomically
from vdmini_bench.system.progress import progress

Experiment = Literal["removal", "patching"]
EXPERIMENTS: tuple[Experiment, Experiment] = ("removal", "patching")
# The steps in which a block is removed or patched, as a range of the share of steps done.
PHASES = {"all": (0.0, 1.0), "first third": (0.0, 1 / 3), "second third": (1 / 3, 2 / 3), "last third": (2 / 3, 1.0)}
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


def measure_teachers(asked: DepthStudy, folder: Path, device: str | None) -> dict[str, list[Effect]]:
    """Remove and patch every block of each teacher, in each part of the clips.

    Each block's effects are written to `folder` when measured and never measured twice.

    Raises:
        ModelLoadError: a teacher cannot be loaded.
        SuiteError: the folder holds another study.
        MissingAssetsError: what reads clips of named things is not there.
        BenchError: a teacher cannot sample so, or shows no more than chance of what its captions ask for.
    """
    found = {}
    for number, teacher in enumerate(asked.teachers):
        study = Study(load_for_use(teacher, device=device), (), asked.settings, asked.sample.batch_size)
        place = folder / "teachers" / str(number)
        identity = study.identity() | {"clips": asked.clips, "pairs": asked.pairs, "version": VERSION}
        open_folder(place, identity | asked.named_world())
        world: World[Any] = DrawnWorld()
        if asked.things and asked.actions:
            # It brings VBench's networks.
            from vdmini_bench.studies.named_world import NamedWorld

            world = NamedWorld(asked.things, asked.actions, study.pipeline.device)
        for part in range(asked.parts):
            name, where = (teacher, place) if asked.parts == 1 else (f"{teacher}, part {part}", place / str(part))
            measured = (Removal(study, world, asked.clips, part), Patching(study, world, asked.pairs, part))
            found[name] = measure_depth(study, measured, trials(asked), where)
    return found


def trials(asked: DepthStudy) -> list[tuple[Experiment, str]]:
    """The experiments and phases that a study makes of each block, the one that decides first."""
    every: list[tuple[Experiment, str]] = [(name, phase) for phase in PHASES for name in EXPERIMENTS]
    return every[:1] if asked.deciding_only else every


def measure_depth(
    study: Study, measured: tuple[Removal, Patching], made: Sequence[tuple[Experiment, str]], folder: Path
) -> list[Effect]:
    """The effects of every block of a study's model, by experiment; raises BenchError where it cannot sample."""
    blocks = study.model.blocks.prunable
    experiments: dict[Experiment, Removal | Patching] = dict(zip(EXPERIMENTS, measured, strict=True))
    found: list[Effect] = []
    with progress("depth", len(blocks) * len(made)) as advance:
        for (name, phase), block in product(made, blocks):
            path = folder / "rows" / f"{name}-{block}-{phase.replace(' ', '-')}.json"
            if not path.exists():
                rows = [asdict(effect) for effect in experiments[name].effects(block, phase)]
                write_atomically(path, json.dumps(rows, allow_nan=False) + "\n")
            found += [Effect(**row) for row in json.loads(path.read_text())]
            advance()
    return found


class Removal:
    """One block at a time hands on what it was given."""

    name: Experiment = "removal"

    def __init__(self, study: Study, world: World[Any], clips: int, part: int = 0) -> None:
        self.world = world
        self.scenes = world.scenes(clips, skip=part * clips)
        self.study = _asked(study, self.scenes, range(part * clips, (part + 1) * clips))
        self.whole: dict[Factor, float] | None = None

    def effects(self, block: str, phase: str) -> list[Effect]:
        """The share of the whole model's margin that its clips lose without the block in a phase's steps."""
        chance = self.world.chance
        if self.whole is None:
            self.whole = self._right()
            for factor in FACTORS:
                _require_margin(factor, self.whole[factor], chance[factor])
        denoiser = self.study.model.denoiser
        with during(denoiser, self.study.settings.steps, PHASES[phase]) as active, bypassed(denoiser, block, active):
            left = self._right()
        return [
            Effect(
                self.name, factor, block, _depth(self.study, block), phase,
                (self.whole[factor] - left[factor]) / (self.whole[factor] - chance[factor]), len(self.scenes),
            )
            for factor in FACTORS
        ]  # fmt: skip

    def _right(self) -> dict[Factor, float]:
        clips = _sampled(self.study)
        return {factor: float(self.world.shows(factor, self.scenes, clips).mean()) for factor in FACTORS}


class Patching:
    """One block at a time adds to the second clip of a pair what it adds to the first."""

    name: Experiment = "patching"

    def __init__(self, study: Study, world: World[Any], pairs: int, part: int = 0) -> None:
        self.world, self.study, self.first_seed = world, study, part * pairs
        self.pairs = {factor: world.pairs(pairs, factor, skip=(part + 1) * pairs) for factor in FACTORS}
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
                Effect(self.name, factor, block, _depth(self.study, block), phase, value, len(self.pairs[factor]))
            )
        return found

    def _first_shown(self, factor: Factor) -> tuple[float, float]:
        """How often the first and the second clips of the pairs show the first scene's factor."""
        half = self.study.batch_size // 2
        shown: list[NDArray[np.bool_]] = []
        for start in range(0, len(self.pairs[factor]), half):
            first, second = zip(*self.pairs[factor][start : start + half], strict=True)
            # A pair shares its seed; a patch goes from the first half of a batch to the second.
            seeds = range(self.first_seed + start, self.first_seed + start + len(first))
            clips = _sampled(_asked(self.study, [*first, *second], [*seeds, *seeds]))
            shown.append(self.world.shows(factor, [*first, *first], clips).reshape(2, -1))
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


def _asked(study: Study, scenes: Sequence[Asked], seeds: Sequence[int]) -> Study:
    """A study of the scenes' captions, each with its seed."""
    requests = [
        ClipRequest(f"{place:05d}", seed, prompt=scene.caption)
        for place, (seed, scene) in enumerate(zip(seeds, scenes, strict=True))
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
