"""Runs inside the environment of the official package: reads a request file, does what it says, writes a response file.

It imports nothing of this project. A request names an action: `inspect` says what can be imported, `evaluate` scores
one dimension, `filter` says which videos have no motion. The response is written last and in one step; where it is
not there, whatever went wrong is on standard error and the exit code is not 0.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import importlib.metadata
import json
import os
import shutil
import sys
import time
import traceback
from pathlib import Path
from typing import Any

DECLARED: list[Any] = []
DECIDING = (
    *("vbench", "torch", "torchvision", "numpy", "opencv-python", "decord", "pillow"),
    *("transformers", "timm", "pyiqa", "openai-clip", "dreamsim"),
)


def main(request_file: str, response_file: str) -> None:
    """Answer one request."""
    import torch

    started = time.monotonic()
    request = json.loads(Path(request_file).read_text(encoding="utf-8"))
    repair_torchvision()
    device = choose_device(request["device"])
    response = {"inspect": inspect, "evaluate": evaluate, "filter": find_static}[request["action"]](request, device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    response.update(device=name, versions=versions(), seconds=time.monotonic() - started)
    partial = Path(response_file + ".partial")
    partial.write_text(json.dumps(response, default=to_plain), encoding="utf-8")
    partial.replace(response_file)


def inspect(request: dict[str, Any], device: Any) -> dict[str, Any]:
    """Try to import modules: for each None, or what went wrong in one line."""
    problems: dict[str, str | None] = {}
    for name in request["modules"]:
        try:
            importlib.import_module(name)
            problems[name] = None
        except BaseException as error:
            problems[name] = f"{type(error).__name__}: {error}".splitlines()[0]
            traceback.print_exc()
    return {"problems": problems}


def evaluate(request: dict[str, Any], device: Any) -> dict[str, Any]:
    """Score one dimension on the videos that the file `entries` lists; `result` is as the official code has it."""
    package, dimension = request["package"], request["dimension"]
    options = {"resolution": request["resolution"]} if package != "vbench" else {}
    offer_dino_weights()
    load_where_it_runs(device)
    # The official `evaluate` would list the folder itself and take the suffix of whichever file comes first.
    parts = importlib.import_module(f"{package}.utils").init_submodules([dimension], local=True, **options)
    compute = getattr(importlib.import_module(f"{package}.{dimension}"), f"compute_{dimension}")
    return {"result": list(compute(request["entries"], device, parts[dimension]))}


def find_static(request: dict[str, Any], device: Any) -> dict[str, Any]:
    """Say of each video whether the official filter finds no motion in it."""
    load_where_it_runs(device)
    module = importlib.import_module("vbench.cli.static_filter")
    module.DEVICE = device  # type: ignore[attr-defined]
    weights = Path(module.CACHE_DIR) / "raft_model" / "models" / "raft-things.pth"
    settings = argparse.Namespace(model=str(weights), small=False, mixed_precision=False, alternate_corr=False)
    chosen = module.StaticFilter(settings, device=device)
    return {"static": {video: bool(chosen.infer(video)) for video in request["videos"]}}


def repair_torchvision() -> None:
    """Import torchvision, also where it was built for another torch: then two of its operators are declared by name."""
    import torch

    try:
        importlib.import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        library = torch.library.Library("torchvision", "FRAGMENT")
        library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        # Declarations go with the object, so it lives as long as the process.
        DECLARED.append(library)
        importlib.import_module("torchvision")


def choose_device(wanted: str) -> Any:
    """The device of that name; for `auto` the first GPU when there is one."""
    import torch

    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(wanted)


def load_where_it_runs(device: Any) -> None:
    """Have `torch.load` put tensors on the device: the official code leaves them on the GPU that they were saved from.

    Checkpoints may also hold the arguments of a training script, which are data and no code.
    """
    import torch

    load = torch.load

    def load_on_device(file: Any, map_location: Any = None, *args: Any, **options: Any) -> Any:
        return load(file, map_location or device, *args, **options)

    torch.load = load_on_device  # type: ignore[assignment]
    torch.serialization.add_safe_globals([argparse.Namespace])


def offer_dino_weights() -> None:
    """Copy DINO's weights from the cache to where DINO's own loader looks: it ignores the path that it is given."""
    import torch

    cache = Path(os.environ.get("VBENCH_CACHE_DIR") or Path.home() / ".cache" / "vbench")
    weights = cache / "dino_model" / "dino_vitbase16_pretrain.pth"
    wanted = Path(torch.hub.get_dir()) / "checkpoints" / weights.name
    if weights.is_file() and not wanted.exists():
        wanted.parent.mkdir(parents=True, exist_ok=True)
        partial = wanted.with_name(f"{wanted.name}.{os.getpid()}")
        shutil.copyfile(weights, partial)
        partial.replace(wanted)


def versions() -> dict[str, str]:
    """Versions of what determines the scores."""
    found = {}
    for name in DECIDING:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def to_plain(value: Any) -> Any:
    """Numbers of numpy and torch as Python's."""
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} in a result")


if __name__ == "__main__":
    main(*sys.argv[1:])
