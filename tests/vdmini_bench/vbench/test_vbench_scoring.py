"""Scoring against a driver that misbehaves in every way that the official command was seen to."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from small_suite import Bench, draw_video, write_weights

from vdmini_bench.errors import ExitCode, MissingAssetsError, SuiteError
from vdmini_bench.vbench.completeness import IncompleteVideosError
from vdmini_bench.vbench.prompts import read_prompts
from vdmini_bench.vbench.report import Report
from vdmini_bench.vbench.results import kept_result, results_file
from vdmini_bench.vbench.scoring import score_videos

THREE = ("subject_consistency", "imaging_quality", "dynamic_degree")


def by_name(report: Report) -> dict[str, float | None]:
    return {item.dimension: None if item.result is None else item.result.score for item in report.outcomes}


def test_scores_are_kept_by_video_on_one_scale(tmp_path: Path) -> None:
    bench = Bench(tmp_path, THREE)
    report = score_videos(bench.scoring())
    assert report.exit_code == ExitCode.OK
    assert by_name(report) == {"subject_consistency": 3 / 32, "imaging_quality": 3 / 32, "dynamic_degree": 0.6}
    kept = kept_result(bench.output, "imaging_quality")
    assert kept is not None
    assert kept.videos == {f"a cat, by Hokusai-{index}.mp4": (index + 1) / 32 for index in range(5)}
    moves = kept_result(bench.output, "dynamic_degree")
    assert moves is not None
    assert [*moves.videos.values()] == [0, 0, 1, 1, 1]
    # The official file stays as it was, but for the paths of this machine.
    official = json.loads(results_file(bench.output, "imaging_quality").read_text(encoding="utf-8"))
    assert official["imaging_quality"][1][0] == {"video_path": "a cat, by Hokusai-0.mp4", "video_results": 100 / 32}
    assert str(tmp_path) not in results_file(bench.output, "imaging_quality").read_text(encoding="utf-8")


def test_prompts_with_a_shells_characters_reach_the_driver_whole(tmp_path: Path) -> None:
    bench = Bench(tmp_path, ("human_action",))
    score_videos(bench.scoring())
    kept = kept_result(bench.output, "human_action")
    assert kept is not None
    assert [*kept.videos] == [f"A person is clapping; $HOME `x` 'y'-{index}.mp4" for index in range(5)]


@pytest.mark.parametrize(
    ("behaviour", "said"),
    [
        ("fails", "exit code 1: RuntimeError: CUDA out of memory"),
        ("silent", "ended without a result"),
        ("broken", "ended without a result"),
        ("partial", "no results for 1 of 5 videos"),
        ("twice", "results for 1 videos that were not asked for"),
        ("wrong names", "results for 1 videos that were not asked for, as /elsewhere/"),
        ("nan", "the score is nan"),
        ("nan video", "which is no finite number"),
    ],
)
def test_a_dimension_that_failed_is_an_error_with_its_log(tmp_path: Path, behaviour: str, said: str) -> None:
    bench = Bench(tmp_path, THREE)
    bench.plan(subject_consistency=behaviour)
    report = score_videos(bench.scoring())
    assert report.exit_code == ExitCode.FAILED
    failed = report.outcomes[0]
    assert said in failed.error
    assert "the official code speaks of subject_consistency" in Path(failed.log).read_text(encoding="utf-8")
    assert by_name(report) == {"subject_consistency": None, "imaging_quality": 3 / 32, "dynamic_degree": 0.6}
    assert not results_file(bench.output, "subject_consistency").exists()
    written = json.loads((bench.output / "scores.json").read_text(encoding="utf-8"))
    assert written["dimensions"]["subject_consistency"]["status"] == "failed"
    assert report.totals is not None
    assert report.totals.total is None
    assert "subject_consistency" in report.totals.missing


def test_a_second_call_scores_only_what_failed(tmp_path: Path) -> None:
    bench = Bench(tmp_path, THREE)
    bench.plan(imaging_quality="fails")
    score_videos(bench.scoring())
    assert bench.calls() == [*THREE]
    bench.plan()
    report = score_videos(bench.scoring())
    assert bench.calls() == ["imaging_quality"]
    assert [item.cached for item in report.outcomes] == [True, False, True]
    assert all(value is not None for value in by_name(report).values())


def test_a_changed_video_or_package_is_scored_again(tmp_path: Path) -> None:
    bench = Bench(tmp_path, ("subject_consistency", "color"))
    score_videos(bench.scoring())
    bench.calls()
    draw_video(bench.videos / "a cat, by Hokusai-2.mp4", 99)
    score_videos(bench.scoring())
    assert bench.calls() == ["subject_consistency"]
    newer = bench.scoring()
    object.__setattr__(newer, "packages", "other")
    score_videos(newer)
    assert bench.calls() == ["subject_consistency", "color"]


def test_a_dimension_that_fails_now_does_not_show_its_older_score(tmp_path: Path) -> None:
    bench = Bench(tmp_path, ("subject_consistency",))
    score_videos(bench.scoring())
    draw_video(bench.videos / "a cat, by Hokusai-2.mp4", 99)
    bench.plan(subject_consistency="silent")
    assert by_name(score_videos(bench.scoring())) == {"subject_consistency": None}
    assert kept_result(bench.output, "subject_consistency") is None


def test_videos_that_the_official_code_leaves_out_by_design_are_counted(tmp_path: Path) -> None:
    bench = Bench(tmp_path, ("color",))
    bench.plan(color="partial")
    report = score_videos(bench.scoring())
    result = report.outcomes[0].result
    assert result is not None
    assert (len(result.videos), result.expected, result.skipped) == (4, 5, ("a red bicycle-0.mp4",))


def test_nothing_is_scored_of_an_incomplete_folder(tmp_path: Path) -> None:
    bench = Bench(tmp_path, THREE)
    (bench.videos / "a cat, by Hokusai-3.mp4").unlink()
    with pytest.raises(IncompleteVideosError, match=r"1 missing:\n  a cat, by Hokusai-3") as caught:
        score_videos(bench.scoring())
    assert caught.value.exit_code == ExitCode.INCOMPLETE
    assert bench.calls() == []
    listed = json.loads((bench.output / "completeness.json").read_text(encoding="utf-8"))
    assert listed["missing"] == ["a cat, by Hokusai-3"]


def test_the_filter_keeps_the_first_five_still_videos_in_the_official_order(tmp_path: Path) -> None:
    bench = Bench(tmp_path, ("temporal_flickering",), filtered=True)
    report = score_videos(bench.scoring())
    kept = kept_result(bench.output, "temporal_flickering")
    assert kept is not None
    # By the driver 0 and 10 move; names are sorted as text.
    assert [*kept.videos] == [f"a still lake.-{index}.mp4" for index in (1, 11, 12, 13, 14)]
    assert bench.calls() == ["filter", "temporal_flickering"]
    assert report.protocol == "vbench-t2v"
    draw_video(bench.videos / "a still lake.-24.mp4", 99, side=128)
    assert score_videos(bench.scoring()).outcomes[0].cached
    assert bench.calls() == ["filter"]


def test_without_the_filter_scores_have_another_protocol(tmp_path: Path) -> None:
    bench = Bench(tmp_path, ("temporal_flickering",))
    report = score_videos(bench.scoring())
    assert bench.calls() == ["temporal_flickering"]
    assert report.protocol == "vbench-t2v-unfiltered"


def test_a_filter_that_fails_takes_only_its_own_dimension(tmp_path: Path) -> None:
    bench = Bench(tmp_path, ("temporal_flickering", "color"), filtered=True)
    bench.plan(filter="fails")
    report = score_videos(bench.scoring())
    assert "static_filter: exit code 1" in report.outcomes[0].error
    assert by_name(report)["color"] == 3 / 32


def test_custom_videos_are_scored_by_any_name_and_have_no_total(tmp_path: Path) -> None:
    bench = Bench(tmp_path, ("subject_consistency",))
    report = score_videos(bench.scoring("custom"))
    assert report.totals is None
    assert report.groups == {}
    assert report.protocol == "vbench-custom"
    with pytest.raises(SuiteError, match="give another folder with -o"):
        score_videos(bench.scoring())


def test_custom_videos_without_their_images_are_refused_before_anything_runs(tmp_path: Path) -> None:
    bench = Bench(tmp_path, ("subject_consistency",))
    with pytest.raises(SuiteError, match="i2v_subject: no image a cat, by Hokusai"):
        score_videos(bench.scoring("custom", dimensions=("subject_consistency", "i2v_subject")))
    assert bench.calls() == []


def test_weights_that_are_missing_are_named_before_anything_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VBENCH_CACHE_DIR", str(tmp_path / "weights"))
    bench = Bench(tmp_path, ("imaging_quality",))
    scoring = bench.scoring()
    object.__setattr__(scoring, "download", False)
    missing = tmp_path / "weights" / "pyiqa_model" / "musiq_spaq_ckpt-358bb6af.pth"
    with pytest.raises(MissingAssetsError, match=f"imaging_quality: {missing}"):
        score_videos(scoring)
    assert bench.calls() == []
    write_weights(missing)
    assert score_videos(scoring).exit_code == ExitCode.OK
    bench.calls()
    write_weights(missing, b"other weights")
    score_videos(scoring)
    assert bench.calls() == ["imaging_quality"]


def test_measurements_say_what_is_unavailable(tmp_path: Path) -> None:
    bench = Bench(tmp_path, THREE)
    bench.plan(dynamic_degree="nan")
    report = score_videos(bench.scoring()).to_json()
    assert report["protocol"] == "vbench-t2v-unfiltered"
    assert report["dimensions"]["imaging_quality"]["score"] == pytest.approx(3 / 32)
    failed = report["dimensions"]["dynamic_degree"]
    assert (failed["status"], failed["score"], report["total"]) == ("failed", None, None)
    assert "NaN" not in json.dumps(report)


def test_image_to_video_needs_every_image_before_anything_runs(tmp_path: Path) -> None:
    bench = Bench(tmp_path, ("color",))
    entries = [{"prompt_en": "a red bicycle", "dimension": ["i2v_subject", "camera_motion"], "image_name": "b.jpg"}]
    bench.prompt_file.write_text(json.dumps(entries), encoding="utf-8")
    prompts = tuple(read_prompts(bench.prompt_file, tmp_path))
    names = ("i2v_subject", "camera_motion")
    with pytest.raises(MissingAssetsError, match=r"i2v_subject: 1 of 1 images are not there, such as .*b\.jpg"):
        score_videos(bench.scoring("i2v", dimensions=names, prompts=prompts))
    assert bench.calls() == []
    (tmp_path / "b.jpg").touch()
    report = score_videos(bench.scoring("i2v", dimensions=names, prompts=prompts, ratio="16-9"))
    assert by_name(report) == {"i2v_subject": 3 / 32, "camera_motion": 3 / 32}
    assert report.protocol == "vbench-i2v-16-9"
    assert "i2v" in report.groups
    bench.calls()
    score_videos(bench.scoring("i2v", dimensions=names, prompts=prompts, ratio="16-9"))
    assert bench.calls() == []
    (tmp_path / "b.jpg").write_bytes(b"another picture under its name")
    score_videos(bench.scoring("i2v", dimensions=names, prompts=prompts, ratio="16-9"))
    assert "i2v_subject" in bench.calls()
