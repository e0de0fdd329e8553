"""Metrics of other packages, found by their entry points: scored beside ours, and none can break another."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from itertools import groupby
from typing import TYPE_CHECKING, Protocol, get_args

from vdmini_bench.results.score import OF_PACKAGE, Better, Score
from vdmini_bench.results.table import DIMENSION, TITLES
from vdmini_bench.system.progress import say

if TYPE_CHECKING:
    from vdmini_bench.data.clip_reader import ClipReader
    from vdmini_bench.metrics.features import ClipFeatures
    from vdmini_bench.metrics.reference import Reference
    from vdmini_bench.metrics.scorer import Scorer

# The group of entry points by which other packages add a `Metric` under its name.
PLUGINS = "vdmini_bench.metrics"
NAME = re.compile(r"[a-z][a-z0-9_]*")
# What rows of ours are called, and how names begin that tables read a meaning from.
OURS = {*TITLES, "kvd", "fid", "inception_score_tgan_v2", "inception_score_stylegan_v", "jedi", "fvmd"}
RESERVED = (DIMENSION, "latency", "speedup", "params", "peak_memory")


@dataclass(frozen=True)
class Block:
    """Clips of one model as a metric sees them: what was measured of them, and of the real ones.

    Each clip of `clips`, and of `real`, is T H W C uint8, and decoded again by a metric that goes through them; `real`
    is None where the real side is shipped as statistics.
    """

    features: ClipFeatures
    reference: Reference
    clips: ClipReader
    real: ClipReader | None

    def part(self, block: slice) -> Block:
        """Those clips of it alone."""
        arrays = {name: array[block] for name, array in self.features.arrays.items()}
        clips = replace(self.clips, paths=self.clips.paths[block], problems=[])
        return replace(self, features=type(self.features)(**arrays), clips=clips)


class Metric(Protocol):
    """What an entry point names. Another `version` says that the same clips would get another number."""

    name: str
    version: str
    unit: str
    better: Better

    def of_block(self, block: Block) -> float:
        """The value of one block; mean and standard error over blocks are the harness's."""


@dataclass(frozen=True)
class Plugged:
    """A metric by its entry point's name, or the `problem` because of which there is none.

    `version` has its package's name in front: numbers of two packages never compare.
    """

    name: str
    version: str
    metric: Metric | None = None
    problem: str = ""


@cache
def plugged_metrics() -> tuple[Plugged, ...]:
    """What other packages have added, by name; loading them imports those packages."""
    points = sorted(entry_points(group=PLUGINS), key=lambda point: (point.name, point.value))
    return tuple(_load(name, [*same]) for name, same in groupby(points, key=lambda point: point.name))


def plugged_versions() -> dict[str, str]:
    """The version of each by name, which decides its scores."""
    return {each.name: each.version for each in plugged_metrics()}


def plugged_scores(scorer: Scorer, whole: Block, metrics: Sequence[Plugged]) -> tuple[list[Score], dict[str, str]]:
    """The scores of these for all clips of a model, and by metric why it has no value."""
    scores: list[Score] = []
    problems: dict[str, str] = {}
    for each in metrics:
        if each.metric is None:
            scores.append(scorer.unavailable(each.name, each.version, "neither"))
            problems[each.name] = each.problem
            say(f"{each.name} is unavailable: {each.problem}")
            continue
        unit, better = each.metric.unit, each.metric.better
        try:
            scores.append(scorer.blocks(each.name, each.version, unit, better, _values(each.metric, whole)))
        except Exception as error:  # whatever their code raises is their metric's own, and all others must survive it
            scores.append(scorer.failed(each.name, each.version, unit, better))
            reason = f"{type(error).__name__}: {error}".partition("\n")[0]
            problems[each.name] = f"{reason} (in {each.version}; kept: raise its version once it is mended)"
            say(f"{each.name} failed: {problems[each.name]}")
    return scores, problems


def _values(metric: Metric, whole: Block) -> Callable[[slice], float]:
    """The metric as a function of a block's place."""

    def of_block(place: slice) -> float:
        block = whole.part(place)
        value = float(metric.of_block(block))
        # A mean over fewer clips than there are is no result.
        block.clips.check()
        return value

    return of_block


def _load(name: str, points: Sequence[EntryPoint]) -> Plugged:
    value = points[0].value
    package = value.partition(":")[0].partition(".")[0].strip()
    none = Plugged(name, package + OF_PACKAGE)
    if not NAME.fullmatch(name) or name in OURS or name.startswith(RESERVED):
        # Never a row that could be taken for one of ours.
        reason = f"{value} cannot be called {name!r}: small letters, digits and _, and no name or beginning of ours"
        return replace(none, name=f"{package}{OF_PACKAGE}{name}", problem=reason)
    if len(points) > 1:
        return replace(none, problem=f"several packages have it: {', '.join(point.value for point in points)}")
    try:
        metric = points[0].load()
        wrong = next(_faults(name, metric), None)
    except Exception as error:  # an import runs their code
        reason = f"{value} cannot be loaded: {type(error).__name__}: {error}".partition("\n")[0]
        return replace(none, problem=reason)
    if wrong is not None:
        return replace(none, problem=f"{value} is no metric: {wrong}")
    return replace(none, version=f"{package}{OF_PACKAGE}{metric.version}", metric=metric)


def _faults(name: str, metric: object) -> Iterator[str]:
    if isinstance(metric, type):
        yield "it is a class: name an object of it"
    if getattr(metric, "name", None) != name:
        yield f"its name has to be {name!r}, that of its entry point"
    if not (isinstance(version := getattr(metric, "version", None), str) and version):
        yield "its version has to be a text that is not empty"
    if not isinstance(getattr(metric, "unit", None), str):
        yield "its unit has to be a text, an empty one where it has none"
    if getattr(metric, "better", None) not in get_args(Better):
        yield f"better has to be one of {', '.join(get_args(Better))}"
    if not callable(getattr(metric, "of_block", None)):
        yield "it lacks of_block(block)"
