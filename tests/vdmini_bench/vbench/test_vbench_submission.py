"""The leaderboard's zip: what the official scripts read from it, and what keeps it from being written."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest
from small_suite import draw_video

from vdmini_bench.config.vbench_dimensions import DIMENSIONS, OF_MODE, Mode
from vdmini_bench.errors import SuiteError
from vdmini_bench.vbench.completeness import check_videos, write_record
from vdmini_bench.vbench.results import check_result, keep_result
from vdmini_bench.vbench.submission import IncompleteResultsError, write_submission


def keep_all(output: Path, videos: Path, mode: Mode, left_out: str = "") -> dict[str, float]:
    """Results of every dimension, as scoring keeps them."""
    draw_video(videos / "a cat-0.mp4", 0)
    found = check_videos(videos, None)
    write_record(output / "videos.json", found.files)
    path = str(videos / "a cat-0.mp4")
    contents = {"a cat-0.mp4": found.files["a cat-0"].sha256}
    scores = {name: 0.3 + 0.01 * place for place, name in enumerate(OF_MODE[mode]) if name != left_out}
    for name, score in scores.items():
        scale = 100 if DIMENSIONS[name].percent else 1
        result: list[object] = [score, [{"video_path": path, "video_results": score * scale}]]
        if name == "camera_motion":
            result.insert(1, {"pan_left": score})
        response = {"result": result, "device": "CPU", "versions": {}, "seconds": 1.0}
        keep_result(output, "key", contents, response, check_result(name, result, [path]))
    (output / "scores.json").write_text(json.dumps({"mode": mode, "folder": str(videos)}), encoding="utf-8")
    return scores


def test_native_scores_are_not_for_the_leaderboard(tmp_path: Path) -> None:
    output = tmp_path / "scores"
    keep_all(output, tmp_path / "videos", "t2v")
    record = output / "records" / "imaging_quality.json"
    content = json.loads(record.read_text(encoding="utf-8"))
    record.write_text(json.dumps({**content, "versions": {"native": "native-2"}}), encoding="utf-8")
    with pytest.raises(IncompleteResultsError, match="imaging_quality scored by our own code"):
        write_submission(output, tmp_path / "scores.zip")


def read_as_the_leaderboard(file: Path) -> dict[str, float]:
    """Every object in a .json file at the top, or one folder down, gives its keys' first items."""
    found = {}
    with zipfile.ZipFile(file) as archive:
        for name in archive.namelist():
            assert name.count("/") <= 1
            assert name.endswith(".json")
            content = json.loads(archive.read(name))
            if isinstance(content, dict):
                found.update({dimension: result[0] for dimension, result in content.items()})
    return found


@pytest.mark.parametrize("mode", ["t2v", "i2v"])
def test_the_leaderboard_reads_every_score(tmp_path: Path, mode: Mode) -> None:
    scores = keep_all(tmp_path / "scores", tmp_path / "videos", mode)
    target = tmp_path / "zips" / "model.zip"
    assert write_submission(tmp_path / "scores", target) == mode
    assert read_as_the_leaderboard(target) == pytest.approx(scores)
    first = target.read_bytes()
    write_submission(tmp_path / "scores", target)
    assert target.read_bytes() == first


def test_a_missing_dimension_is_refused_since_it_would_count_as_0(tmp_path: Path) -> None:
    keep_all(tmp_path / "scores", tmp_path / "videos", "t2v", left_out="scene")
    with pytest.raises(IncompleteResultsError, match="no results for scene, which the leaderboard would count as 0"):
        write_submission(tmp_path / "scores", tmp_path / "model.zip")
    assert not (tmp_path / "model.zip").exists()


def test_results_of_videos_that_have_changed_since_are_refused(tmp_path: Path) -> None:
    keep_all(tmp_path / "scores", tmp_path / "videos", "t2v")
    draw_video(tmp_path / "videos" / "a cat-0.mp4", 99)
    with pytest.raises(IncompleteResultsError, match="videos have changed since subject_consistency"):
        write_submission(tmp_path / "scores", tmp_path / "model.zip")
    write_record(tmp_path / "scores" / "videos.json", check_videos(tmp_path / "videos", None).files)
    with pytest.raises(IncompleteResultsError, match="videos have changed since subject_consistency"):
        write_submission(tmp_path / "scores", tmp_path / "model.zip")


def test_custom_scores_have_no_leaderboard(tmp_path: Path) -> None:
    with pytest.raises(SuiteError, match="holds no scores"):
        write_submission(tmp_path, tmp_path / "model.zip")
    (tmp_path / "scores.json").write_text('{"mode": "custom"}', encoding="utf-8")
    with pytest.raises(SuiteError, match="no leaderboard"):
        write_submission(tmp_path, tmp_path / "model.zip")
