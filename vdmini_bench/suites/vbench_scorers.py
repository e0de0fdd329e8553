"""What scores each dimension of a VBench suite here, and why those that nothing scores are unavailable."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from vdmini_bench.assets.cache import own_folder
from vdmini_bench.config.vbench import VBenchSpec
from vdmini_bench.config.vbench_dimensions import DIMENSIONS, FILTERED, VBENCH_VERSION, Mode
from vdmini_bench.system.files import key_of, sha256_of
from vdmini_bench.vbench.environment import COMMAND, Environment, packages_digest
from vdmini_bench.vbench.native.catalogue import NATIVE_VERSION, STATIC, is_native, state_of
from vdmini_bench.vbench.requirements import MISSING, weight_faults, weights_state

# The dimensions that a classifier of the drawn world answers, all from one reading of a clip.
DRAWN_WORLD = "drawn_world"


@dataclass(frozen=True)
class Judge:
    """What scores one dimension or, in the drawn world, several.

    `official` is the package in its environment, `native` our own code of the same dimension, `classifier` that of the
    drawn world. `digest` holds all that scores follow from, besides the videos.
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
        found = _choose(name, vbench, record, smallest_side)
        if isinstance(found, Judge):
            judges[name] = found
        else:
            reasons[name] = found
    if vbench.prompts == "embedded":
        judges[DRAWN_WORLD] = Judge("classifier", classifier_digest())
    return judges, reasons


def _choose(name: str, vbench: VBenchSpec, record: Mapping[str, Any] | None, smallest_side: int) -> Judge | str:
    """The judge of one dimension, or why there is none."""
    if name not in vbench.asked_dimensions:
        return "not asked for: vbench.dimensions"
    if official_mode(name, vbench) == "custom" and not DIMENSIONS[name].custom:
        return "its official code needs the official prompts"
    needed = DIMENSIONS[name].side
    if smallest_side < needed:
        return f"its network cannot read clips of {smallest_side} pixels, {needed} are needed"
    official = _why_not_official(name, vbench, record)
    native = _fault_of(name, vbench, native=True) if is_native(name) else "there is none"
    # Only a score on the official prompts compares with those of others: nobody's code takes the place of that unasked.
    may_replace = vbench.code == "native" or (official is not None and official_mode(name, vbench) == "custom")
    if native is None and may_replace:
        return Judge("native", native_digest(name, vbench))
    if official is None:
        assert record is not None
        return Judge("official", official_digest(name, vbench, record))
    return f"{official}; our own code: {native}" if may_replace and is_native(name) else official


def official_mode(dimension: str, vbench: VBenchSpec) -> Mode:
    """The mode in which the official code scores a dimension of the suite's videos."""
    return vbench.mode if vbench.prompts == "official" and counts(dimension, vbench) else "custom"


def counts(dimension: str, vbench: VBenchSpec) -> bool:
    """Whether the mode's official total has the dimension in it."""
    return not (vbench.mode == "i2v" and dimension == FILTERED)


def official_digest(dimension: str, vbench: VBenchSpec, record: Mapping[str, Any]) -> str:
    """All that an official score follows from."""
    settings = [official_mode(dimension, vbench), vbench.ratio, filters(dimension, vbench)]
    return key_of([VBENCH_VERSION, packages_digest(record), weights_state(dimension), settings])


def native_digest(dimension: str, vbench: VBenchSpec) -> str:
    """All that a native score follows from, likewise; flickering without a filter reads no weights."""
    filtered = filters(dimension, vbench)
    states = [*state_of(dimension), *(state_of(STATIC) if filtered else [])]
    settings = [official_mode(dimension, vbench), vbench.ratio, filtered]
    return key_of([NATIVE_VERSION, states, settings]) if states else NATIVE_VERSION


def classifier_digest() -> str:
    """The identity of the classifier of drawn clips; empty where it is not there."""
    from vdmini_bench.metrics.scene_classifier import RECORD, SHIPPED, WEIGHTS
    from vdmini_bench.metrics.semantic import FAITHFULNESS_VERSION, SEMANTIC_VERSION

    files = [SHIPPED / name for name in (WEIGHTS, RECORD)]
    if not all(path.is_file() for path in files):
        return ""
    return key_of([SEMANTIC_VERSION, FAITHFULNESS_VERSION, *map(sha256_of, files)])


def filters(dimension: str, vbench: VBenchSpec) -> bool:
    """Whether videos with motion are sorted out before the dimension is scored."""
    whole = vbench.static_filter and vbench.samples_per_prompt is None
    return dimension == FILTERED and whole and official_mode(dimension, vbench) == "t2v"


def _why_not_official(name: str, vbench: VBenchSpec, record: Mapping[str, Any] | None) -> str | None:
    """Why the official code cannot score a dimension here; None where it can."""
    if record is None:
        return f"no environment for the official code: {COMMAND}"
    problem = record["problems"][name]
    return f"{problem}: see vdmini-bench doctor" if problem is not None else _fault_of(name, vbench, native=False)


def _fault_of(name: str, vbench: VBenchSpec, *, native: bool) -> str | None:
    faults = weight_faults(name, filtered=filters(name, vbench), native=native)
    if not faults:
        return None
    first = min(faults, key=lambda fault: fault.reason != MISSING)
    # The reason goes with the published rows, which say nothing of whose machine it was.
    return f"{first.file} {first.reason}: see vdmini-bench doctor".replace(str(own_folder("HOME", Path("~"))), "~")
