"""A folder of samples holds what its record says: what changed is made again, and nothing else is."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vdmini.models.registry import VideoModel
from vdmini.requests import ClipRequest, SampleSettings
from vdmini_bench.data.requests import drawn_requests
from vdmini_bench.models import sampling as generation
from vdmini_bench.models.sampling import sample_into
from vdmini_bench.models.source import load_for_use

# diffusers' schedulers meet numpy 2 that way.
pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
)
SETTINGS = SampleSettings(
    steps=1, frames=4, height=32, width=32, noise_strength=0.0, min_guidance=1.0, max_guidance=1.0
)
REQUESTS = drawn_requests(5)


@pytest.fixture(scope="module")
def model() -> VideoModel:
    return load_for_use("embedded/svd")


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.glob("*.mp4"))}


def times(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in sorted(folder.glob("*.mp4"))}


def record(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "samples.json").read_text())
    return found


def assert_true(folder: Path, requests: Sequence[ClipRequest]) -> None:
    """What the record says of each clip is what the file holds and what was asked for."""
    said, asked = record(folder)["clips"], {request.name: request for request in requests}
    assert {clip["file"]: clip["sha256"] for clip in said}.items() <= digests(folder).items()
    for clip in said:
        request = asked[clip["name"]]
        assert (clip["seed"], clip["prompt"], clip["image_sha256"]) == (
            request.seed,
            request.prompt,
            request.image_sha256,
        )


def other_image(request: ClipRequest) -> ClipRequest:
    assert request.image is not None
    return replace(request, image=np.ascontiguousarray(request.image[::-1]))


def other_seed(request: ClipRequest) -> ClipRequest:
    return replace(request, seed=request.seed + 100)


@pytest.mark.parametrize("change", [other_image, other_seed])
def test_a_changed_request_is_sampled_again_and_no_other_batch(model: VideoModel, tmp_path: Path, change: Any) -> None:
    folder, fresh = tmp_path / "kept", tmp_path / "fresh"
    assert sample_into(model, REQUESTS, SETTINGS, folder, 2) == 5
    before, bytes_before = times(folder), digests(folder)
    changed = [*REQUESTS[:3], change(REQUESTS[3]), REQUESTS[4]]
    assert sample_into(model, changed, SETTINGS, folder, 2) == 2
    sample_into(model, changed, SETTINGS, fresh, 2)
    assert digests(folder) == digests(fresh)
    assert digests(folder)["00003.mp4"] != bytes_before["00003.mp4"]
    kept = {name for name, time in times(folder).items() if before[name] == time}
    assert kept == {"00000.mp4", "00001.mp4", "00004.mp4"}
    assert_true(folder, changed)


def test_more_requests_remake_only_a_batch_that_grows(model: VideoModel, tmp_path: Path) -> None:
    sample_into(model, REQUESTS[:3], SETTINGS, tmp_path, 2)
    before = times(tmp_path)
    assert sample_into(model, REQUESTS, SETTINGS, tmp_path, 2) == 3
    assert {name for name, time in times(tmp_path).items() if before.get(name) == time} == {"00000.mp4", "00001.mp4"}
    assert sample_into(model, REQUESTS, SETTINGS, tmp_path, 2) == 0


@pytest.mark.parametrize("what", ["settings", "checkpoint_sha256", "dtype"])
def test_another_origin_remakes_every_clip(
    model: VideoModel, tmp_path: Path, what: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sample_into(model, REQUESTS[:2], SETTINGS, tmp_path, 2)
    settings = replace(SETTINGS, motion_bucket=5) if what == "settings" else SETTINGS
    if what == "checkpoint_sha256":
        monkeypatch.setattr(generation, "source_sha256", lambda source: "of other weights")
    if what == "dtype":
        recorded = record(tmp_path)
        (tmp_path / "samples.json").write_text(json.dumps({**recorded, "dtype": "float16"}))
    assert sample_into(model, REQUESTS[:2], settings, tmp_path, 2) == 2
    assert f"holds clips of another {what}" in capsys.readouterr().err


def test_an_edited_or_lost_file_is_made_again(model: VideoModel, tmp_path: Path) -> None:
    sample_into(model, REQUESTS[:3], SETTINGS, tmp_path, 1)
    before = digests(tmp_path)
    edited = (tmp_path / "00000.mp4").read_bytes()
    (tmp_path / "00000.mp4").write_bytes(edited[:-1] + bytes([edited[-1] ^ 1]))
    (tmp_path / "00002.mp4").unlink()
    assert sample_into(model, REQUESTS[:3], SETTINGS, tmp_path, 1) == 2
    assert digests(tmp_path) == before


def test_files_of_no_request_are_named_and_left(
    model: VideoModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sample_into(model, REQUESTS[:3], SETTINGS, tmp_path, 1)
    (tmp_path / "mine.webm").write_bytes(b"of somebody else")
    before = digests(tmp_path)
    assert sample_into(model, REQUESTS[:2], SETTINGS, tmp_path, 1) == 0
    said = capsys.readouterr().err
    assert "2 videos" in said
    assert "00002.mp4, mine.webm" in said
    assert digests(tmp_path) == before
    assert [clip["name"] for clip in record(tmp_path)["clips"]] == ["00000", "00001"]
    assert [other["file"] for other in record(tmp_path)["others"]] == ["00002.mp4", "mine.webm"]
    # What it came from is remembered.
    assert sample_into(model, REQUESTS[:3], SETTINGS, tmp_path, 1) == 0


@pytest.mark.parametrize("writes", [0, 1, 2])
def test_a_kill_between_any_two_files_leaves_the_record_true(
    model: VideoModel, tmp_path: Path, writes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, fresh = tmp_path / "kept", tmp_path / "fresh"
    sample_into(model, REQUESTS[:3], SETTINGS, folder, 3)
    changed = [other_seed(request) for request in REQUESTS[:3]]
    write, left = generation.write_whole, [writes]

    def killed(*arguments: Any) -> None:
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        write(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(generation, "write_whole", killed)
        with pytest.raises(KeyboardInterrupt):
            sample_into(model, changed, SETTINGS, folder, 3)
    assert_true(folder, changed)
    sample_into(model, changed, SETTINGS, folder, 3)
    sample_into(model, changed, SETTINGS, fresh, 3)
    assert digests(folder) == digests(fresh)
    assert_true(folder, changed)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"clips": 3}', '{"clips": [{"sha256": 1}], "others": []}'])
def test_a_damaged_record_says_nothing(model: VideoModel, tmp_path: Path, text: str) -> None:
    (tmp_path / "samples.json").write_text(text)
    assert sample_into(model, REQUESTS[:1], SETTINGS, tmp_path, 1) == 1
    assert_true(tmp_path, REQUESTS[:1])
