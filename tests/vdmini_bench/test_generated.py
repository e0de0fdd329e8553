"""The teacher's own clips are drawn once, kept, and trained on without any data."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from vdmini.conditioning.base import EncodeSettings
from vdmini.latents import LatentCache, UnreadableClipError, encode_to_cache
from vdmini.models.registry import VideoModel
from vdmini.requests import SampleSettings
from vdmini.sample import sample_clips
from vdmini_bench.data.requests import drawn_requests
from vdmini_bench.distill.teacher_clips import generate_clips
from vdmini_bench.errors import BenchError, SuiteError
from vdmini_bench.models.source import load_for_use

# diffusers' schedulers meet numpy 2 that way.
pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
)
SETTINGS = SampleSettings(
    steps=1, frames=4, height=32, width=32, noise_strength=0.0, min_guidance=1.0, max_guidance=1.0
)


@pytest.fixture(scope="module")
def teacher() -> VideoModel:
    return load_for_use("embedded/svd")


def test_the_teachers_clips_are_drawn_once_and_encoded(teacher: VideoModel, tmp_path: Path) -> None:
    assert teacher.pipeline is not None
    requests = drawn_requests(3)
    requests[1] = replace(requests[1], prompt="a red disc")
    folder = tmp_path / "clips"
    clips = generate_clips(teacher, requests, SETTINGS, folder, batch_size=2)
    assert list(clips.names) == ["00000", "00001", "00002"]
    assert [clips.clip(index).prompt for index in range(3)] == ["", "a red disc", ""]
    drawn = sample_clips(teacher.pipeline, requests[:2], SETTINGS)
    for index, frames in enumerate(drawn):
        found = clips.clip(index)
        assert found.seed == index
        assert found.frames.shape == (4, 32, 32, 3)
        assert np.abs(found.frames.astype(int) - frames).mean() < 5
    found = clips.clip(0)

    times = {path.name: path.stat().st_mtime_ns for path in folder.glob("0*")}
    again = generate_clips(teacher, requests, SETTINGS, folder, batch_size=2)
    assert again == clips
    assert {path.name: path.stat().st_mtime_ns for path in folder.glob("0*")} == times
    assert generate_clips(teacher, requests, replace(SETTINGS, steps=2), folder, batch_size=2).names == clips.names
    assert not np.array_equal(clips.clip(0).frames, found.frames), "clips of other settings would be kept"
    generate_clips(teacher, requests, SETTINGS, folder, batch_size=2)

    settings = EncodeSettings(SETTINGS.frames_per_second)
    encode_to_cache(teacher.pipeline, clips, tmp_path / "cache", settings, identity="embedded")
    batch = LatentCache.open(tmp_path / "cache").batch(torch.tensor([2, 0]))
    assert batch["latents"].shape[:2] == (2, 4)

    next(folder.glob("00001.*")).unlink()
    with pytest.raises(UnreadableClipError, match="00001"):
        clips.clip(1)


def test_what_cannot_be_drawn_is_refused(teacher: VideoModel, tmp_path: Path) -> None:
    requests = drawn_requests(2)
    with pytest.raises(SuiteError, match="no clips to draw"):
        generate_clips(teacher, [], SETTINGS, tmp_path / "new", batch_size=1)
    with pytest.raises(SuiteError, match="3 clips are named '00000'"):
        generate_clips(teacher, [*requests, requests[0], requests[0]], SETTINGS, tmp_path / "new", batch_size=1)
    with pytest.raises(BenchError, match="has no image"):
        generate_clips(teacher, [replace(requests[0], image=None)], SETTINGS, tmp_path / "new", batch_size=1)
    with pytest.raises(BenchError, match="a denoiser alone"):
        generate_clips(replace(teacher, pipeline=None), requests, SETTINGS, tmp_path / "new", batch_size=1)
    assert not list(tmp_path.glob("new/*.mkv"))
