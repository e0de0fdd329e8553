"""How long the native and the official code take on the same clips and seeded weights, in turn, each in a new process.

    VDMINI_VBENCH_ENV=... python tests/vdmini_bench/vbench/time_beside_official.py WEIGHTS FOLDER --rounds 3

WEIGHTS holds what `random_weights.py` writes, FOLDER takes the clips and a line of JSON for every process. With seeded
weights RAFT finds every clip in motion, which is what dynamic_degree is fastest on; with `--still` its last layer is
zero, and it finds none in motion.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from official_request import STYLE, official_request, scores_of

DIMENSIONS = (
    *("temporal_flickering", "background_consistency", "subject_consistency", "motion_smoothness", "dynamic_degree"),
    *("imaging_quality", "aesthetic_quality", "i2v_subject", "appearance_style", "temporal_style"),
    "overall_consistency",
)
SPEEDS = (2.5, 0.6)
LAST = "update_block.flow_head.conv2."


def main() -> None:
    """Time both, or be one of both."""
    if sys.argv[1] in ("native", "official"):
        side, request, answer = sys.argv[1:]
        asked = json.loads(Path(request).read_text(encoding="utf-8"))
        Path(answer).write_text(json.dumps({"native": native, "official": official}[side](asked)), encoding="utf-8")
        return
    parser = argparse.ArgumentParser()
    parser.add_argument("weights", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--height", type=int, default=320)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--still", action="store_true")
    parser.add_argument("--dimensions", default=",".join(DIMENSIONS))
    time_both(parser.parse_args())


def time_both(arguments: argparse.Namespace) -> None:
    """Each round asks both, and the next the other way round."""
    from vdmini_bench.vbench import environment as module

    arguments.folder.mkdir(parents=True, exist_ok=True)
    pythons = {"native": sys.executable, "official": str(module.default_environment().python)}
    weights = without_flow(arguments.weights, arguments.folder) if arguments.still else arguments.weights
    request = {
        "videos": write_clips(arguments.folder, arguments.frames, arguments.height, arguments.width),
        "dimensions": arguments.dimensions.split(","),
        "driver": str(Path(module.__file__).parent),
    }
    asked = (arguments.folder / "request.json").absolute()
    asked.write_text(json.dumps(request), encoding="utf-8")
    variables = {"VBENCH_CACHE_DIR": str(weights.absolute()), "TORCH_HOME": str(arguments.folder.absolute() / "torch")}
    shape = [arguments.frames, arguments.height, arguments.width]
    for turn in range(arguments.rounds):
        for side in ("official", "native") if turn % 2 else ("native", "official"):
            answer = asked.with_name(f"{side}.json")
            command = [pythons[side], __file__, side, str(asked), str(answer)]
            subprocess.run(command, check=True, cwd=arguments.folder, env=os.environ | variables)
            line = {"round": turn, "side": side, "still": arguments.still, "clips": len(SPEEDS), "shape": shape}
            line |= {"load": os.getloadavg()[0], **json.loads(answer.read_text(encoding="utf-8"))}
            with (arguments.folder / "times.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
            print(side, line["seconds"], line["processor_seconds"], line["peak_mib"], flush=True)


def native(asked: dict[str, Any]) -> dict[str, Any]:
    """One pass for all dimensions."""
    import torch

    torch.set_num_threads(1)
    from vdmini_bench.vbench.native.frames import read_clip
    from vdmini_bench.vbench.native.networks import Networks
    from vdmini_bench.vbench.native.questions import Question
    from vdmini_bench.vbench.native.scorers import SCORERS

    networks, spent, scores = Networks(torch.device("cpu")), dict.fromkeys(asked["dimensions"], 0.0), {}
    for path in map(Path, asked["videos"]):
        clip = read_clip(path)
        for dimension in asked["dimensions"]:
            started = time.process_time()
            text = STYLE if dimension == "appearance_style" else path.stem.rsplit("-", 1)[0]
            image = path.with_suffix(".png") if dimension.startswith("i2v") else None
            scores[f"{dimension} {path.name}"] = SCORERS[dimension](
                clip, Question(dimension, path, "", text, image), networks
            ).value
            spent[dimension] += time.process_time() - started
    return measured(spent, scores)


def official(asked: dict[str, Any]) -> dict[str, Any]:
    """One dimension after another, as the official command does."""
    sys.path.append(asked["driver"])
    driver: Any = __import__("driver")
    driver.repair_torchvision()
    import torch

    torch.set_num_threads(1)
    spent, scores = {}, {}
    for dimension in asked["dimensions"]:
        started = time.process_time()
        videos = [(path, path.stem.rsplit("-", 1)[0], path.with_suffix(".png")) for path in map(Path, asked["videos"])]
        found = scores_of(driver.evaluate(official_request(dimension, videos, Path()), torch.device("cpu")))
        scores |= {f"{dimension} {name}": score for name, score in found.items()}
        spent[dimension] = time.process_time() - started
    return measured(spent, scores)


def measured(spent: dict[str, float], scores: dict[str, float]) -> dict[str, Any]:
    """What this process took from its start on."""
    started = float(Path("/proc/self/stat").read_text().rsplit(")", 1)[1].split()[19]) / os.sysconf("SC_CLK_TCK")
    return {
        "seconds": time.clock_gettime(time.CLOCK_BOOTTIME) - started,
        "processor_seconds": time.process_time(),
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "dimensions": spent,
        "scores": scores,
    }


def write_clips(folder: Path, frames: int, height: int, width: int) -> list[str]:
    """Smooth noise that moves, and the images that the clips start from."""
    from PIL import Image
    from small_suite import moving_noise

    from vdmini_bench.data.video import write_video

    paths = []
    for seed, speed in enumerate(SPEEDS):
        pixels = moving_noise(seed, frames, height, width, speed)
        path = (folder / f"a red ball, rolling {seed}-0.mp4").absolute()
        write_video(path, pixels, 8)
        Image.fromarray(pixels[0]).resize((2 * width, 2 * height)).save(path.with_suffix(".png"))
        paths.append(str(path))
    return paths


def without_flow(weights: Path, folder: Path) -> Path:
    """The same files, but RAFT's last layer is zero."""
    import torch

    still = folder / "still"
    for path in weights.rglob("*"):
        place = still / path.relative_to(weights)
        if path.is_file() and not place.exists():
            place.parent.mkdir(parents=True, exist_ok=True)
            place.symlink_to(path.absolute())
    raft = still / "raft_model" / "models" / "raft-things.pth"
    state = torch.load(raft, weights_only=True)
    raft.unlink()
    torch.save({name: value * 0 if LAST in name else value for name, value in state.items()}, raft)
    return still


if __name__ == "__main__":
    main()
