"""What each dimension needs to run, and how to get what is missing."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path
from shlex import quote

from vdmini.models.weights import weights_fault
from vdmini_bench.assets.cache import asset_path
from vdmini_bench.config.vbench_dimensions import (
    DIMENSIONS,
    DREAMSIM_WEIGHTS,
    FILTER_WEIGHTS,
    FILTERED,
    TAG2TEXT_WORDS,
    WeightFile,
)
from vdmini_bench.vbench.environment import COMMAND, Environment, weights_folder
from vdmini_bench.vbench.native.catalogue import FILES, STATIC, native_dimensions, path_of

ENVIRONMENT = "the vbench environment"
_OF_DIMENSIONS = [weight for dimension in DIMENSIONS.values() for weight in dimension.weights]
WEIGHTS = {weight.path: weight for weight in (*DREAMSIM_WEIGHTS, *TAG2TEXT_WORDS, *_OF_DIMENSIONS)}


MISSING = "is missing"


@dataclass(frozen=True)
class WeightFault:
    """A weight file that a dimension reads and that is not in its place, or what is there instead of it."""

    dimension: str
    weight: WeightFile
    file: Path
    reason: str

    def __str__(self) -> str:
        return str(self.file) if self.reason == MISSING else f"{self.file} {self.reason}"


def weight_faults(dimension: str, *, filtered: bool, native: bool) -> list[WeightFault]:
    """What is wrong with a dimension's weight files, of our own code's where `native`.

    Where `filtered`, temporal_flickering's are those of its filter.
    """
    filters = filtered and dimension == FILTERED
    chosen = FILTER_WEIGHTS if filters else DIMENSIONS[dimension].weights
    if native:
        chosen = tuple(WEIGHTS[path] for path in FILES[STATIC if filters else dimension])
    places = [(weight, path_of(weight.path) if native else weights_folder() / weight.path) for weight in chosen]
    found = [(weight, file, weight_fault(file) if file.is_file() else MISSING) for weight, file in places]
    return [WeightFault(dimension, weight, file, reason) for weight, file, reason in found if reason is not None]


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


def examine_dimensions(environment: Environment) -> dict[str, dict[str, str]]:
    """What every dimension lacks here, and how to get each thing: environment, module, weights, prompts and images."""
    record = environment.record()
    found: dict[str, dict[str, str]] = {}
    for name, dimension in DIMENSIONS.items():
        lacks = found[name] = {}
        if record is None:
            lacks[ENVIRONMENT] = COMMAND
        elif record["problems"][name] is not None:
            lacks[str(record["problems"][name])] = _how_to_install(name, environment)
        lacks |= _lacking_weights(name, native=False)
        if dimension.group == "i2v" and asset_path("vbench-i2v") is None:
            lacks["prompts and images of VBench-I2V"] = "vdmini-bench assets import vbench-i2v PATH"
    return found


def examine_native() -> dict[str, dict[str, str]]:
    """The same of every dimension that we have code for, which needs weights alone, those of its filter too."""
    return {name: _lacking_weights(name, native=True) for name in native_dimensions()}


def _lacking_weights(name: str, *, native: bool) -> dict[str, str]:
    note = " (without --no-static-filter)" if name == FILTERED else ""
    return {
        f"{fault.weight.path}{note}{'' if fault.reason == MISSING else f', which {fault.reason}'}": how_to_fetch(
            fault.weight
        )
        for fault in weight_faults(name, filtered=True, native=native)
    }


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
