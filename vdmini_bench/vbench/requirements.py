"""What each dimension needs to run, and how to get what is missing."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from shlex import quote

from vdmini.models.weights import weights_fault
from vdmini_bench.assets.cache import asset_path
from vdmini_bench.config.vbench_dimensions import DIMENSIONS, FILTER_WEIGHTS, FILTERED, WeightFile
from vdmini_bench.vbench.environment import COMMAND, Environment, weights_folder

ENVIRONMENT = "the vbench environment"


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


def damaged_weights(dimensions: Iterable[str], *, filtered: bool) -> list[tuple[str, str]]:
    """Dimension, and what is in the place of a weight file that is no such file; the filter's as above."""
    folder = weights_folder()
    return [
        (name, f"{folder / weight.path} {fault}")
        for name in dimensions
        for weight in _weights(name, filtered=filtered)
        if (folder / weight.path).is_file() and (fault := weight_fault(folder / weight.path)) is not None
    ]


def weight_fault(file: Path) -> str | None:
    """Why a file cannot be the weights that its name says, from its first and last bytes; None where it may be them."""
    if fault := weights_fault(file):
        return f"is {fault}"
    with file.open("rb") as opened:
        head = opened.read(2)
    if file.suffix in (".pt", ".pth", ".tar", ".bin"):
        # PyTorch writes zip archives, and before 1.6 pickles.
        if head.startswith(b"PK"):
            return None if zipfile.is_zipfile(file) else "is cut off: its download did not end"
        return None if head.startswith(b"\x80") else "holds no PyTorch weights"
    if file.suffix == ".gz" and not head.startswith(b"\x1f\x8b"):
        return "is no gzip file"
    return None


def examine_dimensions(environment: Environment) -> list[Readiness]:
    """Look at every dimension: the environment as it was made, its modules, and the weights in their cache."""
    record = environment.record()
    problems = None if record is None else record["problems"]
    return [_readiness(name, environment, problems) for name in DIMENSIONS]


def _readiness(name: str, environment: Environment, problems: dict[str, str | None] | None) -> Readiness:
    lacks: dict[str, str] = {}
    if problems is None:
        lacks[ENVIRONMENT] = COMMAND
    elif problems[name] is not None:
        lacks[str(problems[name])] = _how_to_install(name, environment)
    for weight in _weights(name, filtered=True):
        file = weights_folder() / weight.path
        fault = weight_fault(file) if file.is_file() else ""
        if fault is not None:
            note = " (without --no-static-filter)" if name == FILTERED else ""
            lacks[f"{weight.path}{note}{fault and f', which {fault}'}"] = how_to_fetch(weight)
    if DIMENSIONS[name].group == "i2v" and asset_path("vbench-i2v") is None:
        lacks["prompts and images of VBench-I2V"] = "vdmini-bench assets import vbench-i2v PATH"
    return Readiness(name, tuple(lacks), tuple(lacks.values()))


def _weights(name: str, *, filtered: bool) -> tuple[WeightFile, ...]:
    return FILTER_WEIGHTS if filtered and name == FILTERED else DIMENSIONS[name].weights


def how_to_fetch(weight: WeightFile) -> str:
    """The command that puts a weight file into its place."""
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
