"""What scores each dimension of a VBench suite here, and why those that nothing scores are unavailable."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from vdmini_bench.assets import sha256_of
from vdmini_bench.metrics.flickering import FLICKERING_VERSION
from vdmini_bench.store import key_of
from vdmini_bench.vbench.dimensions import DIMENSIONS, FILTERED, VBENCH_VERSION, Mode
from vdmini_bench.vbench.environment import COMMAND, Environment, packages_digest, weights_folder
from vdmini_bench.vbench.requirements import damaged_weights, missing_weights
from vdmini_bench.vbench_suite import VBenchSpec

# The dimensions that a classifier of the drawn world answers, all from one reading of a clip.
DRAWN_WORLD = "drawn_world"


@dataclass(frozen=True)
class Judge:
    """What scores one dimension or, in the drawn world, several.

    `official` is the package in its environment, `native` our own function of the same formula, `classifier` that of
    the drawn world. `digest` holds all that scores follow from, besides the videos.
    """

    kind: Literal["official", "native", "classifier"]
    digest: str


def choose_judges(
    vbench: VBenchSpec, environment: Environment, smallest_side: int
) -> tuple[dict[str, Judge], dict[str, str]]:
    """The judge of each dimension that can be scored here, and for the others the reason why not."""
    judges: dict[str, Judge] = {}
    reasons: dict[str, str] = {}
    record = environment.record()
    for name in vbench.all_dimensions:
        reason = _why_not(name, vbench, record, smallest_side)
        if name not in vbench.asked_dimensions:
            reasons[name] = "not asked for: vbench.dimensions"
        elif reason is None:
            assert record is not None
            judges[name] = Judge("official", official_digest(name, vbench, record))
        elif name == FILTERED and official_mode(name, vbench) == "custom":
            judges[name] = Judge("native", FLICKERING_VERSION)
        else:
            reasons[name] = reason
    if vbench.prompts == "embedded":
        judges[DRAWN_WORLD] = Judge("classifier", classifier_digest())
    return judges, reasons


def official_mode(dimension: str, vbench: VBenchSpec) -> Mode:
    """The mode in which the official code scores a dimension of the suite's videos."""
    return vbench.mode if vbench.prompts == "official" and counts(dimension, vbench) else "custom"


def counts(dimension: str, vbench: VBenchSpec) -> bool:
    """Whether the mode's official total has the dimension in it."""
    return not (vbench.mode == "i2v" and dimension == FILTERED)


def official_digest(dimension: str, vbench: VBenchSpec, record: Mapping[str, Any]) -> str:
    """All that an official score follows from; weights by size and time, since they have gigabytes."""
    states = {}
    for weight in DIMENSIONS[dimension].weights:
        path = weights_folder() / weight.path
        if path.is_file():
            states[weight.path] = [path.stat().st_size, path.stat().st_mtime_ns]
    settings = [official_mode(dimension, vbench), vbench.ratio, filters(dimension, vbench)]
    return key_of([VBENCH_VERSION, packages_digest(record), states, settings])


def classifier_digest() -> str:
    """The identity of the classifier of drawn clips; empty where it is not there."""
    from vdmini_bench.metrics.image_faithfulness import FAITHFULNESS_VERSION
    from vdmini_bench.metrics.scene_classifier import RECORD, SHIPPED, WEIGHTS
    from vdmini_bench.metrics.semantic import SEMANTIC_VERSION

    files = [SHIPPED / name for name in (WEIGHTS, RECORD)]
    if not all(path.is_file() for path in files):
        return ""
    return key_of([SEMANTIC_VERSION, FAITHFULNESS_VERSION, *map(sha256_of, files)])


def filters(dimension: str, vbench: VBenchSpec) -> bool:
    """Whether videos with motion are sorted out before the dimension is scored."""
    return dimension == FILTERED and vbench.static_filter and official_mode(dimension, vbench) == "t2v"


def _why_not(dimension: str, vbench: VBenchSpec, record: Mapping[str, Any] | None, smallest_side: int) -> str | None:
    """Why the official code cannot score a dimension here; None where it can."""
    if official_mode(dimension, vbench) == "custom" and not DIMENSIONS[dimension].custom:
        return "its official code needs the official prompts"
    needed = DIMENSIONS[dimension].side
    if smallest_side < needed:
        return f"its network cannot read clips of {smallest_side} pixels, {needed} are needed"
    if record is None:
        return f"no environment for the official code: {COMMAND}"
    problem = record["problems"][dimension]
    if problem is not None:
        return f"{problem}: see vdmini-bench doctor"
    filtered = filters(dimension, vbench)
    faults = [f"{path} is missing" for _, path in missing_weights([dimension], filtered=filtered)]
    faults += [fault for _, fault in damaged_weights([dimension], filtered=filtered)]
    return f"{faults[0]}: see vdmini-bench doctor" if faults else None
