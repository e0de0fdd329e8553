"""What each dimension needs to run, and how to get what is missing."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from shlex import quote

from vdmini_bench.assets import asset_path
from vdmini_bench.vbench.dimensions import DIMENSIONS, FILTER_WEIGHTS, FILTERED, WeightFile
from vdmini_bench.vbench.environment import COMMAND, Environment, weights_folder


@dataclass(frozen=True)
class Readiness:
    """Whether a dimension can be scored here: what it lacks, and for each the next step; both empty when ready."""

    dimension: str
    missing: tuple[str, ...]
    next: tuple[str, ...]


def missing_weights(dimensions: Iterable[str], *, filtered: bool) -> list[tuple[str, str]]:
    """Dimension and path of every weight file that is not in its place; the filter's are temporal_flickering's."""
    folder = weights_folder()
    return [
        (name, str(folder / weight.path))
        for name in dimensions
        for weight in _weights(name, filtered=filtered)
        if not (folder / weight.path).is_file()
    ]


def examine_dimensions(environment: Environment) -> list[Readiness]:
    """Look at every dimension: the environment as it was made, its modules, and the weights in their cache."""
    record = environment.record()
    problems = None if record is None else record["problems"]
    return [_readiness(name, environment, problems) for name in DIMENSIONS]


def _readiness(name: str, environment: Environment, problems: dict[str, str | None] | None) -> Readiness:
    lacks: dict[str, str] = {}
    if problems is None:
        lacks["the vbench environment"] = COMMAND
    elif problems[name] is not None:
        lacks[str(problems[name])] = _how_to_install(name, environment)
    for weight in _weights(name, filtered=True):
        if not (weights_folder() / weight.path).is_file():
            note = " (without --no-static-filter)" if name == FILTERED else ""
            lacks[f"{weight.path}{note}"] = _how_to_fetch(weight)
    if DIMENSIONS[name].group == "i2v" and asset_path("vbench-i2v") is None:
        lacks["prompts and images of VBench-I2V"] = "vdmini-bench assets import vbench-i2v PATH"
    return Readiness(name, tuple(lacks), tuple(lacks.values()))


def _weights(name: str, *, filtered: bool) -> tuple[WeightFile, ...]:
    return FILTER_WEIGHTS if filtered and name == FILTERED else DIMENSIONS[name].weights


def _how_to_fetch(weight: WeightFile) -> str:
    folder = weights_folder()
    if weight.fetch:
        return f"mkdir -p {quote(str(folder))} && cd {quote(str(folder))} && {weight.fetch}"
    return f"curl -L --create-dirs -o {quote(str(folder / weight.path))} {weight.url}"


def _how_to_install(name: str, environment: Environment) -> str:
    constraints = quote(str(environment.folder / "constraints.txt"))
    pip = f"{quote(str(environment.python))} -m pip install -c {constraints}"
    if name == "camera_motion":
        return "its code is not in the package: copy vbench2_beta_i2v/third_party of the VBench repository beside it"
    source = {"detectron2": "detectron2@git+https://github.com/facebookresearch/detectron2.git"}
    wanted = " ".join(source.get(module, module) for module in DIMENSIONS[name].modules)
    return f"{pip} --no-build-isolation {wanted}; then {COMMAND} --check" if wanted else f"{COMMAND} --again"
