"""What each dimension needs to run, and how to get what is missing."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from shlex import quote

from vdmini.models.weights import weights_fault
from vdmini_bench.assets.cache import asset_path
from vdmini_bench.config.vbench_dimensions import DIMENSIONS, DREAMSIM_WEIGHTS, FILTER_WEIGHTS, FILTERED, WeightFile
from vdmini_bench.vbench.environment import COMMAND, Environment, weights_folder
from vdmini_bench.vbench.native.catalogue import FILES, STATIC, native_dimensions, path_of

ENVIRONMENT = "the vbench environment"
WEIGHTS = {
    weight.path: weight
    for weight in (*DREAMSIM_WEIGHTS, *(weight for dimension in DIMENSIONS.values() for weight in dimension.weights))
}


@dataclass(frozen=True)
class Readiness:
    """Whether a dimension can be scored here: what it lacks, and for each the next step; both empty when ready."""

    dimension: str
    missing: tuple[str, ...]
    next: tuple[str, ...]


def missing_weights(dimensions: Iterable[str], *, filtered: bool, native: bool = False) -> list[tuple[str, str]]:
    """Dimension and path of every weight file that is not in its place, of our own code's files where `native`.

    The filter's are temporal_flickering's.
    """
    places = _places(dimensions, filtered=filtered, native=native)
    return [(name, str(file)) for name, file, _ in places if not file.is_file()]


def damaged_weights(dimensions: Iterable[str], *, filtered: bool, native: bool = False) -> list[tuple[str, str]]:
    """Dimension, and what is in the place of a weight file that is no such file; all else as above."""
    places = _places(dimensions, filtered=filtered, native=native)
    faults = [(name, file, weight_fault(file)) for name, file, _ in places if file.is_file()]
    return [(name, f"{file} {fault}") for name, file, fault in faults if fault is not None]


def weights_state(dimension: str) -> dict[str, list[int]]:
    """Size and time, by path, of each of its official weight files that is there: they have gigabytes."""
    paths = {weight.path: weights_folder() / weight.path for weight in DIMENSIONS[dimension].weights}
    found = {name: path.stat() for name, path in paths.items() if path.is_file()}
    return {name: [status.st_size, status.st_mtime_ns] for name, status in found.items()}


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


def examine_native() -> list[Readiness]:
    """Look at every dimension that we have code for: which of its weights are there, those of its filter too."""
    return [_ready(name, _lacking_weights(name, native=True)) for name in native_dimensions()]


def _readiness(name: str, environment: Environment, problems: dict[str, str | None] | None) -> Readiness:
    lacks: dict[str, str] = {}
    if problems is None:
        lacks[ENVIRONMENT] = COMMAND
    elif problems[name] is not None:
        lacks[str(problems[name])] = _how_to_install(name, environment)
    lacks |= _lacking_weights(name, native=False)
    if DIMENSIONS[name].group == "i2v" and asset_path("vbench-i2v") is None:
        lacks["prompts and images of VBench-I2V"] = "vdmini-bench assets import vbench-i2v PATH"
    return _ready(name, lacks)


def _ready(name: str, lacks: dict[str, str]) -> Readiness:
    return Readiness(name, tuple(lacks), tuple(lacks.values()))


def _lacking_weights(name: str, *, native: bool) -> dict[str, str]:
    """The weight files that are missing or damaged, each with the command that gets it."""
    lacks = {}
    for _, file, weight in _places([name], filtered=True, native=native):
        fault = weight_fault(file) if file.is_file() else ""
        if fault is not None:
            note = " (without --no-static-filter)" if name == FILTERED else ""
            lacks[f"{weight.path}{note}{fault and f', which {fault}'}"] = how_to_fetch(weight)
    return lacks


def _places(
    dimensions: Iterable[str], *, filtered: bool, native: bool
) -> Iterator[tuple[str, Path, WeightFile]]:  # fmt: skip
    """Every weight file of these dimensions with its place, there or not."""
    for name in dimensions:
        chosen = FILTER_WEIGHTS if filtered and name == FILTERED else DIMENSIONS[name].weights
        if native:
            chosen = tuple(WEIGHTS[path] for path in FILES[STATIC if filtered and name == FILTERED else name])
        for weight in chosen:
            yield name, path_of(weight.path) if native else weights_folder() / weight.path, weight


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
