"""How long `score` and `cd-fvd` take for FVD of the same clips by the same I3D weights, in turn, each in a new process.

    python tests/vdmini_bench/time_beside_cd_fvd.py FOLDER --clips 32 --rounds 3

FOLDER takes the peer's packages, the clips, and a line of JSON for every process. Each side reads `--clips` real and as
many other clips of 28 frames, 320x240, on one thread; `flow` is `score` as it is, `plain` is without the flow distance,
which `cd-fvd` has not.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

PEER = ("cd-fvd==0.1.1", "einops", "torchvision==0.28.0")
FRAMES, HEIGHT, WIDTH = 28, 240, 320
SIDES = ("cd-fvd", "flow", "plain")
REAL, OTHER = "real", "other"
BRANCHES = {"0.Conv3d_0a_1x1": "b0", "1.Conv3d_0a_1x1": "b1a", "1.Conv3d_0b_3x3": "b1b", "2.Conv3d_0a_1x1": "b2a",
            "2.Conv3d_0b_3x3": "b2b", "3.Conv3d_0b_1x1": "b3b"}  # fmt: skip


def main() -> None:
    """Time all, or be the peer."""
    if sys.argv[1] == "peer":
        print(peer(Path(sys.argv[2])))
        return
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--clips", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    folder = arguments.folder.absolute()
    prepare(folder, arguments.clips)
    taken: dict[str, list[float]] = {side: [] for side in SIDES}
    for turn in range(arguments.rounds):
        for side in SIDES[:: -1 if turn % 2 else 1]:
            line = {"round": turn, "side": side, "clips": arguments.clips, **timed(side, folder, arguments.clips)}
            with (folder / "times.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
            print(line, flush=True)
            taken[side].append(line["processor_seconds"])
    for side in SIDES[1:]:
        ratios = sorted(theirs / ours for theirs, ours in zip(taken["cd-fvd"], taken[side], strict=True))
        print(f"{side}: x{statistics.median(ratios):.2f} (x{ratios[0]:.2f} to x{ratios[-1]:.2f}) of processor time")


def prepare(folder: Path, clips: int) -> None:
    """The peer's packages, its file of the weights that `score` reads, and the clips."""
    import torch
    from safetensors.torch import load_file

    from vdmini_bench.assets.cache import fetch_asset
    from vdmini_bench.data.synthetic import ACTIONS, draw_clip
    from vdmini_bench.data.video import write_video

    if not (folder / "peer").is_dir():
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder / "peer")]
        subprocess.run([*command, *PEER], check=True)
    weights = load_file(fetch_asset("i3d-kinetics400"))
    torch.save({peer_name(name): value for name, value in weights.items()}, folder / "i3d.pt")
    actions = [*ACTIONS]
    for place, group in enumerate((REAL, OTHER)):
        (folder / group).mkdir(exist_ok=True)
        for index in range(clips):
            path = folder / group / f"{index:04d}.mp4"
            if not path.exists():
                frames = draw_clip(actions[index % len(actions)], 1 + place, index).frames
                pixels = frames.repeat(1 + FRAMES // len(frames), axis=0)[:FRAMES]
                write_video(path, pixels.repeat(8, axis=1).repeat(10, axis=2)[:, :HEIGHT, :WIDTH], 25)


def peer_name(name: str) -> str:
    """The name of a weight of `InceptionI3d` in the network of pytorch-i3d, which `cd-fvd` has."""
    name = re.sub(r"Branch_(\d\.Conv3d_0[ab]_\dx\d)", lambda found: BRANCHES[found[1]], name.removeprefix("layers."))
    return name.replace("convolution", "conv3d").replace("norm", "bn").replace("logits.", "logits.conv3d.")


def timed(side: str, folder: Path, clips: int) -> dict[str, Any]:
    """Run one side in a process of its own: its FVD, and what it took, start and children included."""
    paths = [str(folder / "peer"), *filter(None, [os.environ.get("PYTHONPATH")])]
    own = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    own |= {"PYTHONPATH": os.pathsep.join(paths)} if side == "cd-fvd" else {}
    with TemporaryDirectory() as results:
        command = [sys.executable, __file__, "peer", str(folder)] if side == "cd-fvd" else ours(side, folder, clips)
        before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=results, env=os.environ | own)
    seconds, after = time.monotonic() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    said = done.stdout.splitlines()[-1]
    rows = [] if side == "cd-fvd" else json.loads(said)["rows"]
    fvd = float(said) if side == "cd-fvd" else next(row["value"] for row in rows if row["metric"] == "fvd")
    return {"seconds": seconds, "processor_seconds": spent, "load": os.getloadavg()[0], "fvd": fvd}


def ours(side: str, folder: Path, clips: int) -> list[str]:
    """The command `score`; results go where it runs."""
    settings = ("protocol.preset=cd-fvd", f"protocol.clips_per_block={clips}", "protocol.blocks=1")
    command = [sys.executable, "-m", "vdmini_bench", "score", str(folder / OTHER), "--against", str(folder / REAL)]
    command += ["--suite", "ucf101", "--profile", "paper", "--workers", "1", "--json"]
    command += [word for setting in settings for word in ("--set", setting)]
    return command + ["--no-flow"] * (side == "plain")


def peer(folder: Path) -> float:
    """The peer's FVD by its own calls, on an array of 16 frames a clip: its reader of files needs another decoder."""
    from vdmini_bench.data.clip_reader import ClipReader
    from vdmini_bench.vbench.driver import repair_torchvision

    repair_torchvision()
    import numpy as np
    import torch
    from cdfvd import fvd  # type: ignore[import-not-found]

    torch.set_num_threads(1)
    found = fvd.cdfvd("i3d", ckpt_path=str(folder / "i3d.pt"), n_fake="full", device="cpu")
    loaders = []
    for group in (REAL, OTHER):
        array = folder / f"{group}.npy"
        np.save(array, np.stack([*ClipReader(sorted((folder / group).glob("*.mp4")), 16, None, WIDTH, HEIGHT)]))
        loaders.append(found.load_videos(str(array), batch_size=8))
    real, other = loaders
    found.compute_real_stats(real)
    found.compute_fake_stats(other)
    return float(found.compute_fvd_from_stats())


if __name__ == "__main__":
    main()
