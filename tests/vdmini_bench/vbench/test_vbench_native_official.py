"""Our own code beside the official one on networks of the published sizes, filled with seeded weights.

A quarter of an hour and 5 GB of memory and of disk: VDMINI_TEST_VBENCH_NETWORKS=1. With
VDMINI_TEST_DINO=FOLDER, a clone of github.com/facebookresearch/dino, DINO's own code is what is compared with; without,
its network is timm's, with DINO's rule for frames of any shape. VDMINI_TEST_VBENCH_WEIGHTS=FOLDER keeps the weights, so
that dimensions can be compared one call at a time (-k). i2v_background is not among them: its official code wants a
package that is not in the environment, and a GPU; `make_native_golden.py` helps it, in small.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
import torch
from official_request import STYLE, official_request, scores_of
from PIL import Image
from small_suite import moving_noise

from vdmini_bench.config.vbench_dimensions import DIMENSIONS
from vdmini_bench.data.video import write_video
from vdmini_bench.vbench import environment as module
from vdmini_bench.vbench.environment import Environment, call_driver, default_environment
from vdmini_bench.vbench.native.catalogue import ADAPTER_SETTINGS, FILES, STATIC
from vdmini_bench.vbench.native.frames import read_clip
from vdmini_bench.vbench.native.networks import Networks
from vdmini_bench.vbench.native.questions import Question
from vdmini_bench.vbench.native.scorers import SCORERS

pytestmark = [
    pytest.mark.skipif(
        not os.environ.get("VDMINI_TEST_VBENCH_NETWORKS"), reason="a quarter of an hour: VDMINI_TEST_VBENCH_NETWORKS=1"
    ),
    pytest.mark.timeout(3600),
    pytest.mark.filterwarnings("ignore:.*torch.jit.*"),
]
TOLERANCE = 1e-4
# Frames, height, width, pixels a frame, frames a second: square, wide, tall, and larger than MUSIQ takes.
CLIPS = {
    "a red ball, rolling-0": (5, 144, 176, 2.5, 8),
    "a calm lake-0": (4, 128, 128, 0.0, 8),
    "a tall tower-0": (7, 200, 136, 1.2, 24),
    "a wide street-0": (3, 152, 640, 4.0, 8),
}


@pytest.fixture(scope="module")
def official(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    environment = default_environment()
    if environment.record() is None:
        pytest.skip(f"no vbench environment in {environment.folder}: vdmini-bench assets vbench")
    return environment


@pytest.fixture(scope="module")
def cache(official: Environment, tmp_path_factory: pytest.TempPathFactory) -> Path:
    kept = os.environ.get("VDMINI_TEST_VBENCH_WEIGHTS")
    folder = Path(kept).absolute() if kept else tmp_path_factory.mktemp("weights")
    # The last that is written.
    if not (folder / ADAPTER_SETTINGS).exists():
        script = Path(__file__).with_name("random_weights.py")
        command = [str(official.python), "-I", str(script), str(Path(module.__file__).parent), str(folder)]
        subprocess.run(command, check=True)
    clone = os.environ.get("VDMINI_TEST_DINO")
    hub = folder / "dino_model" / "facebookresearch_dino_main"
    if clone and not hub.is_symlink():
        (hub / "hubconf.py").unlink()
        hub.rmdir()
        hub.symlink_to(Path(clone).absolute())
    return folder


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("videos")
    for seed, (name, (frames, height, width, step, rate)) in enumerate(CLIPS.items()):
        pixels = moving_noise(seed, frames, height, width, step)
        write_video(folder / f"{name}.mp4", pixels, rate)
        Image.fromarray(pixels[0]).resize((2 * width + 7, 2 * height + 3)).save(folder / f"{name}.png")
    return sorted(folder.glob("*.mp4"))


def ask_official(official: Environment, dimension: str, videos: list[Path], folder: Path) -> dict[str, float]:
    if dimension == STATIC:
        paths = [str(path) for path in videos]
        response = call_driver(official.command, {"action": "filter", "videos": paths}, folder, dimension)
        return {Path(path).name: float(value) for path, value in response["static"].items()}
    request = official_request(dimension, [(path, path.stem, path.with_suffix(".png")) for path in videos], folder)
    return scores_of(call_driver(official.command, request, folder, dimension))


@pytest.mark.parametrize("dimension", [name for name in FILES if name != "i2v_background"])
def test_every_videos_score_is_the_official_one(
    dimension: str,
    official: Environment,
    cache: Path,
    videos: list[Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("VBENCH_CACHE_DIR", str(cache))
    monkeypatch.setenv("TORCH_HOME", str(cache.with_name("torch")))
    theirs = ask_official(official, dimension, videos, tmp_path)
    scale = 100 if dimension in DIMENSIONS and DIMENSIONS[dimension].percent else 1
    networks = Networks(torch.device("cpu"))
    differences = {}
    for path in videos:
        text = STYLE if dimension == "appearance_style" else path.stem
        image = path.with_suffix(".png") if dimension.startswith("i2v") else None
        ours = SCORERS[dimension](read_clip(path), Question(dimension, path, "", text, image), networks)
        differences[path.name] = abs(ours.value - theirs[path.name]) / scale
    print(f"{dimension}: largest difference of a video {max(differences.values()):.1e}")
    assert max(differences.values()) <= TOLERANCE, differences
