"""What works on this machine, item by item, and what to do about what does not."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vdmini.locks import has_locks
from vdmini_bench.assets.cache import asset_path, cache_folder
from vdmini_bench.assets.catalogue import ASSETS, I3D
from vdmini_bench.data.video import ENCODINGS, read_frames, write_video
from vdmini_bench.errors import AssetError, UnreadableVideoError
from vdmini_bench.system.fingerprint import package_versions
from vdmini_bench.vbench.environment import default_environment

if TYPE_CHECKING:
    from vdmini_bench.vbench.requirements import Readiness

# In every overview, fine or not.
ALWAYS = ("device", "disk", "home directory", "console", "two I3D files")


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at; `fine` is False only where a run of the default suite would fail."""

    what: str
    state: str
    next: str = ""
    fine: bool = True


def examine() -> list[Finding]:
    """Look at versions, devices, video codecs, what is embedded, assets, VBench and disk."""
    from vdmini_bench.vbench.requirements import examine_dimensions

    return [
        Finding("python", ".".join(map(str, sys.version_info[:3]))),
        *(
            Finding(name, version, f"pip install {name}" if version == "missing" else "", version != "missing")
            for name, version in package_versions().items()
        ),
        _device(),
        *_codecs(),
        *_embedded(),
        *_assets(),
        *_i3d_agreement(),
        *(_dimension("vbench", found) for found in examine_dimensions(default_environment())),
        *native_findings(),
        _disk(),
        *_surroundings(),
    ]


def overview(findings: Sequence[Finding]) -> list[str]:
    """One screen: versions, device, disk, what is not fine or unusual, and what each command lacks."""
    versions = ("python", *package_versions())
    lines = [", ".join(f"{each.what} {each.state}" for each in findings if each.what in versions)]
    for each in findings:
        if not each.fine or each.what.startswith(ALWAYS):
            said = f"{each.what}: {each.state}{each.next and f'; {each.next}'}"
            lines.append(said if each.fine else f"NOT FINE: {said}")
    if all(each.fine for each in findings):
        lines.append("run, distill, prune, sample, score, time: ready for the embedded models")
    if lacking := [each for each in findings if each.what.startswith("asset ") and each.next]:
        named = ", ".join(f"{each.what.removeprefix('asset ')} ({each.state.partition('; ')[2]})" for each in lacking)
        lines.append(f"assets that are not here: {named}; vdmini-bench assets import NAME PATH, or assets fetch NAME")
    for group, command in (("vbench", "vbench score"), ("vbench --native", "vbench score --native")):
        of = [each for each in findings if each.what.rpartition(" ")[0] == group]
        steps = [each.next.split("; ")[0] for each in of if each.next]
        common = f"; {steps[0]}" if len({*steps}) == 1 else ""
        lines.append(f"{command}: {len(of) - len(steps)} of {len(of)} dimensions ready{common}")
    return [*lines, "the rest, and the next step for each: vdmini-bench doctor --all"]


def _device() -> Finding:
    import torch

    if torch.cuda.is_available():
        return Finding("device", torch.cuda.get_device_name(0))
    return Finding("device", f"CPU, {torch.get_num_threads()} threads", "for a GPU, install the CUDA build of torch")


def _codecs() -> list[Finding]:
    frames = np.zeros((10, 32, 32, 3), dtype=np.uint8)
    findings = []
    with tempfile.TemporaryDirectory() as folder:
        for suffix, (codec, _, _) in ENCODINGS.items():
            path = Path(folder) / f"clip{suffix}"
            try:
                write_video(path, frames, 7)
                read_frames(path, 10)
                findings.append(Finding(f"codec {codec}", "writes and reads"))
            except (OSError, ValueError, UnreadableVideoError) as error:
                findings.append(Finding(f"codec {codec}", str(error), "reinstall av", False))
    return findings


def _embedded() -> list[Finding]:
    from vdmini.models.registry import EMBEDDED
    from vdmini_bench.metrics.scene_classifier import SHIPPED, WEIGHTS

    files = {f"teacher {name}": folder / "model_index.json" for name, folder in EMBEDDED.items()}
    files["classifier of drawn clips"] = SHIPPED / WEIGHTS
    return [
        Finding(what, "here") if file.is_file() else Finding(what, "missing", "reinstall the package", False)
        for what, file in files.items()
    ]


def _assets() -> list[Finding]:
    findings = []
    for name, asset in ASSETS.items():
        here = asset_path(name) is not None
        command = f"{asset.command} (a run does it)" if name == I3D else asset.command
        findings.append(
            Finding(f"asset {name}", "here" if here else f"missing; for {asset.needed_for}", "" if here else command)
        )
    return findings


def _i3d_agreement() -> list[Finding]:
    """How far the logits of the two I3D files are apart, where both are here."""
    if asset_path("i3d-torchscript") is None or asset_path("i3d-kinetics400") is None:
        return []
    from vdmini_bench.metrics.agreement import imported_agreement

    try:
        return [Finding("two I3D files", str(imported_agreement()))]
    except AssetError as error:
        return [Finding("two I3D files", error.reason, error.command)]


def native_findings() -> list[Finding]:
    """Which dimensions of VBench our own code can score with the weights that are here, and what the others lack."""
    from vdmini_bench.vbench.requirements import examine_native

    return [_dimension("vbench --native", found) for found in examine_native()]


def _dimension(code: str, found: Readiness) -> Finding:
    state = f"missing: {', '.join(found.missing)}" if found.missing else "ready"
    # One archive may hold several files.
    return Finding(f"{code} {found.dimension}", state, "; ".join(dict.fromkeys(found.next)))


def _disk() -> Finding:
    free = shutil.disk_usage(Path.cwd()).free / 2**30
    return Finding("disk", f"{free:.1f} GiB free", "" if free > 1 else "free 1 GiB", free > 1)


def _surroundings() -> list[Finding]:
    """What is unusual around us and has a way round: each only where it is so."""
    found = []
    cache = cache_folder()
    if cache.is_relative_to(os.devnull):
        said = "none is known: HOME is not set, and this user has no entry"
        found.append(Finding("home directory", said, "export VDMINI_CACHE=/a/folder/of/yours"))
    for folder in (Path.cwd(), next((each for each in (cache, *cache.parents) if each.is_dir()), Path.cwd())):
        try:
            locks = has_locks(folder)
        except OSError as error:
            state = f"nothing can be written ({error.strerror})"
            found.append(Finding(f"disk of {folder}", state, "choose --results and VDMINI_CACHE elsewhere"))
            continue
        if not locks:
            found.append(Finding(f"disk of {folder}", "has no file locks: files named .held stand for them"))
    encoding = (sys.stdout.encoding or "utf-8").lower()
    if not encoding.startswith("utf"):
        said = f"{encoding}: characters that it lacks are written in another way"
        found.append(Finding("console", said, "export PYTHONIOENCODING=utf-8, where the console can show it"))
    return found
