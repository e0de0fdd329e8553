"""The official package itself, where its environment is there; `VDMINI_TEST_VBENCH=1` makes it first (2.2 GB)."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import cv2
import numpy as np
import pytest
from small_suite import draw_video

from vdmini_bench.config.vbench_dimensions import OF_MODE
from vdmini_bench.data.video import read_frames, write_video
from vdmini_bench.errors import ExitCode
from vdmini_bench.vbench import environment as module
from vdmini_bench.vbench.completeness import measure_video
from vdmini_bench.vbench.environment import Environment, create_environment, default_environment, packages_digest
from vdmini_bench.vbench.native.flickering import temporal_flickering
from vdmini_bench.vbench.prompts import read_prompts, request_videos
from vdmini_bench.vbench.report import Report
from vdmini_bench.vbench.results import kept_result
from vdmini_bench.vbench.scoring import Scoring, score_videos

SEVEN = (
    "subject_consistency", "background_consistency", "temporal_flickering", "motion_smoothness", "dynamic_degree",
    "aesthetic_quality", "imaging_quality",
)  # fmt: skip


@pytest.fixture(scope="module")
def official() -> Environment:
    environment = default_environment()
    if environment.record() is None:
        if not os.environ.get("VDMINI_TEST_VBENCH"):
            pytest.skip(f"no vbench environment in {environment.folder}; VDMINI_TEST_VBENCH=1 makes it")
        create_environment(environment)
    return environment


def score(official: Environment, folder: Path, *dimensions: str) -> Report:
    record = official.require()
    return score_videos(
        Scoring(folder, folder.with_name("scores"), "custom", dimensions, official.command, packages_digest(record))
    )


def test_flickering_is_the_official_functions_and_our_own(official: Environment, tmp_path: Path) -> None:
    videos = tmp_path / "videos"
    for seed in range(3):
        draw_video(videos / f"a lake; it's still-{seed}.mp4", seed, frames=4 + seed)
    report = score(official, videos, "temporal_flickering")
    assert report.exit_code == ExitCode.OK, report.outcomes[0].error
    found = kept_result(tmp_path / "scores", "temporal_flickering")
    assert found is not None
    code = (
        "import sys, json; sys.path.append(sys.argv[1]); import driver; driver.repair_torchvision()\n"
        "from vbench.temporal_flickering import cal_score\n"
        "print(json.dumps([cal_score(path) for path in sys.argv[2:]]))\n"
    )
    paths = sorted(videos.glob("*.mp4"))
    command = [str(official.python), "-I", "-c", code, str(Path(module.__file__).parent), *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    direct = dict(zip((path.name for path in paths), json.loads(done.stdout.splitlines()[-1]), strict=True))
    assert found.videos == pytest.approx(direct, abs=1e-7)
    assert found.score == pytest.approx(sum(direct.values()) / 3, abs=1e-7)
    for path in paths:
        frames = read_frames(path, measure_video(path)[0])
        assert found.videos[path.name] == pytest.approx(temporal_flickering(frames), abs=1e-7)


def test_the_packages_prompts_are_the_official_ones(official: Environment) -> None:
    prompts = read_prompts(official.prompt_file())
    assert len(prompts) == 946
    assert len({prompt.text for prompt in prompts}) == 944
    requests = request_videos(prompts, OF_MODE["t2v"])
    assert len(requests) == len({request.name for request in requests}) == (944 - 75) * 5 + 75 * 25
    assert len(request_videos(prompts, ["subject_consistency"])) == 72 * 5


def test_a_dimension_without_its_code_fails_with_the_reason(official: Environment, tmp_path: Path) -> None:
    draw_video(tmp_path / "videos" / "a beach, camera static.mp4", 0)
    report = score(official, tmp_path / "videos", "camera_motion")
    assert report.exit_code == ExitCode.FAILED
    assert "No module named 'vbench2_beta_i2v.third_party'" in report.outcomes[0].error


@pytest.mark.skipif(not os.environ.get("VDMINI_TEST_VBENCH_NETWORKS"), reason="minutes: VDMINI_TEST_VBENCH_NETWORKS=1")
def test_seven_dimensions_run_with_random_weights(
    official: Environment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = Path(__file__).with_name("random_weights.py")
    cache = tmp_path / "weights"
    command = [str(official.python), "-I", str(script), str(Path(module.__file__).parent), str(cache)]
    subprocess.run(command, check=True)
    monkeypatch.setenv("VBENCH_CACHE_DIR", str(cache))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    videos = tmp_path / "videos"
    for seed in range(2):
        pixels = np.random.default_rng(seed).integers(0, 256, (8, 128, 160, 3), dtype=np.uint8)
        pixels = np.stack([cv2.GaussianBlur(frame, (0, 0), 4) for frame in pixels])
        write_video(videos / f"noise-{seed}.mp4", pixels, 8)
    report = score(official, videos, *SEVEN)
    errors = {outcome.dimension: outcome.error for outcome in report.outcomes if outcome.error}
    assert errors == {}
    for dimension in SEVEN:
        found = kept_result(tmp_path / "scores", dimension)
        assert found is not None
        assert {*found.videos} == {"noise-0.mp4", "noise-1.mp4"}
    assert all(outcome.cached for outcome in score(official, videos, *SEVEN).outcomes)
