"""Published files with a fault each: a message that names it and the next step, exit 2 or 3, and nothing half-run."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from profiles import REHEARSALS
from published_files import HUNYUANVIDEO, IMPORTS, SVD
from world import World

from vdmini_bench.assets.cache import import_asset

RUNS = {each.name: each for each in REHEARSALS}
PAGE = b"<!DOCTYPE html><html><body>404: Not Found</body></html>"


def rewrite(file: Path, content: str | bytes) -> None:
    """Put another file in a linked one's place."""
    file.unlink()
    file.write_bytes(content if isinstance(content, bytes) else content.encode())


def hub_folder(root: Path, name: str) -> Path:
    (folder,) = (root / "hub" / f"models--{name.replace('/', '--')}" / "snapshots").iterdir()
    return folder


def no_split_list(root: Path) -> None:
    (root / "ucf101" / "ucfTrainTestlist" / "testlist01.txt").unlink()


def swapped_class(root: Path) -> None:
    file = root / "ucf101" / "ucfTrainTestlist" / "trainlist01.txt"
    rewrite(file, file.read_text().replace("Archery/v_Archery_g08", "Archery/v_Biking_g08", 1))


def other_numbers(root: Path) -> None:
    file = root / "ucf101" / "ucfTrainTestlist" / "classInd.txt"
    rewrite(file, file.read_text().replace("1 ApplyEyeMakeup", "2 ApplyEyeMakeup", 1))


def cut_shard(root: Path) -> None:
    shard = sorted(hub_folder(root, SVD).glob("unet/*.safetensors"))[1]
    rewrite(shard, shard.read_bytes()[:-1000])


def no_second_encoder(root: Path) -> None:
    shutil.rmtree(hub_folder(root, HUNYUANVIDEO) / "text_encoder_2")


def other_crop(root: Path) -> None:
    picture = root / "vbench-i2v" / "data" / "crop" / "16-9" / "a cat, looking up.jpg"
    picture.unlink()
    Image.fromarray(np.zeros((480, 640, 3), np.uint8)).save(picture)


def other_key(root: Path) -> None:
    file = root / "vbench-i2v" / "vbench2_i2v_full_info.json"
    entries = [{"prompt": entry.pop("prompt_en"), **entry} for entry in json.loads(file.read_text())]
    rewrite(file, json.dumps(entries))


def no_image(root: Path) -> None:
    (root / "vbench-i2v" / "data" / "crop" / "16-9" / "a cat, looking up.jpg").unlink()


def no_video(root: Path) -> None:
    (root / "captioned-videos" / "clip_3.mp4").unlink()


def web_page(root: Path) -> None:
    rewrite(root / "vbench" / "raft_model" / "models" / "raft-things.pth", PAGE)


FAULTS: list[tuple[Callable[[Path], None], str, str]] = [
    (no_split_list, "ucf101-paper", "testlist01.txt: no such split list; unpack UCF101TrainTestSplits"),
    (swapped_class, "ucf101-paper", "is a clip of Biking among Archery: correct the line"),
    (other_numbers, "ucf101-text", "ApplyEyeMakeup is class 2 in classInd.txt, and 1 here: take both from one archive"),
    (cut_shard, "ucf101-paper", "-00002-of-"),
    (no_second_encoder, "vbench_t2v-hunyuanvideo", "text_encoder_2"),
    (other_crop, "vbench_i2v-paper", "a cat, looking up.jpg (640x480): set vbench.ratio"),
    (other_key, "vbench_i2v-paper", "vbench2_i2v_full_info.json is no official VBench prompt file"),
    (no_image, "vbench_i2v-paper", "a cat, looking up.jpg"),
    (no_video, "vbench_t2v-paper", "no video 'clip_3.mp4'"),
    (web_page, "vbench_t2v-paper", "raft-things.pth"),
]

# One of each kind of file: each fault takes a process of its own.
QUICK = (swapped_class, cut_shard, other_crop)


@pytest.mark.parametrize(
    ("plant", "name", "said"),
    [
        pytest.param(*fault, id=fault[0].__name__, marks=() if fault[0] in QUICK else pytest.mark.slow)
        for fault in FAULTS
    ],
)
def test_a_planted_fault_is_named_before_anything_runs(
    world: World, plant: Callable[[Path], None], name: str, said: str, tmp_path: Path
) -> None:
    root = tmp_path / "published"
    shutil.copytree(world.root, root, copy_function=os.link, ignore=shutil.ignore_patterns("*.lock"))
    plant(root)
    moved = {key: value.replace(str(world.root), str(root)) for key, value in world.environment.items()}
    for asset in ("ucf101", "vbench-i2v"):
        import_asset(asset, root / IMPORTS[asset], root / "cache")
    process = World(root, moved).start(*RUNS[name].arguments(tmp_path / "results", frame_fid=world.frame_fid))
    out, errors = process.communicate(timeout=300)
    assert process.returncode in (2, 3), errors[-2000:]
    assert said in errors
    assert "Traceback" not in errors
    assert not out
    assert not [*(tmp_path / "results").glob("work/*")]


@pytest.mark.parametrize("asset", ["i3d-torchscript", "c3d-ucf101"])
def test_half_a_network_is_not_imported(world: World, asset: str, tmp_path: Path) -> None:
    whole = (world.root / IMPORTS[asset]).read_bytes()
    half = tmp_path / IMPORTS[asset]
    half.write_bytes(whole[: len(whole) // 2])
    said = world.call("assets", "import", asset, half, expected=4)
    assert half.name in said
    assert "next: `vdmini-bench assets import" in said
