from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from vdmini_bench.compare.deltas import Delta, compare_result_sets
from vdmini_bench.compare.result_sets import find_result_set
from vdmini_bench.errors import BenchError, NotComparableError, NothingMeasuredError
from vdmini_bench.results.records import read_records
from vdmini_bench.results.runs import latest_run
from vdmini_bench.results.score import Score
from vdmini_bench.results.stats import (
    median_difference_interval,
    median_ratio_interval,
    paired_interval,
    welch_interval,
)
from vdmini_bench.results.store import Store

TEACHER = Score("teacher", "fvd", "1", "p@1", 10.0, "", "lower", 0.1, 30, 30, "ok", (9.0, 10.0, 11.0))
STUDENT = replace(TEACHER, model="student", value=13.0, blocks=(12.1, 12.9, 14.0))


def write_run(root: Path, *scores: Score, name: str = "1", status: str = "complete", suite: str = "ucf101") -> Path:
    folder = root / "runs" / name
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps({"status": status, "suite": {"name": suite}}))
    (folder / "results.jsonl").write_text("".join(json.dumps(score.to_json()) + "\n" for score in scores))
    return folder


def compare_models(run: Path, a: str, b: str, allow_unlike: bool = False) -> list[Delta]:
    store = Store(run.parent.parent)
    return compare_result_sets(find_result_set(a, store, run), find_result_set(b, store, run), allow_unlike)


def verdict(root: Path, a: Score, b: Score) -> str:
    number = len(list((root / "runs").iterdir())) if (root / "runs").exists() else 0
    (delta,) = compare_models(write_run(root, a, b, name=str(number)), a.model, b.model)
    return delta.verdict


def test_scores_read_back_as_written(tmp_path: Path) -> None:
    run = write_run(tmp_path, TEACHER, STUDENT)
    assert [record.score for record in read_records(run)] == [TEACHER, STUDENT]


def test_a_difference_comes_with_its_paired_interval(tmp_path: Path) -> None:
    run = write_run(tmp_path, TEACHER, STUDENT)
    (delta,) = compare_models(run, "teacher", "student")
    assert (delta.a, delta.b, delta.delta, delta.ratio) == (10.0, 13.0, 3.0, 1.3)
    assert delta.interval == paired_interval(TEACHER.blocks, STUDENT.blocks)[1:]
    assert delta.to_json()["ci"] == list(delta.interval or ())
    (back,) = compare_models(run, "student", "teacher")
    assert back.delta == -3.0
    assert back.verdict == "teacher is better"


def test_verdict_words(tmp_path: Path) -> None:
    assert verdict(tmp_path, TEACHER, STUDENT) == "student is worse"
    assert (
        verdict(tmp_path, replace(TEACHER, better="higher"), replace(STUDENT, better="higher")) == "student is better"
    )
    assert verdict(tmp_path, replace(TEACHER, better="neither"), STUDENT) == "student differs"
    noisy = replace(STUDENT, value=10.5, blocks=(8.0, 12.0, 11.5))
    assert verdict(tmp_path, TEACHER, noisy) == "no difference shown"
    plain = replace(TEACHER, blocks=())
    assert verdict(tmp_path, plain, replace(plain, model="student")) == "equal"
    assert verdict(tmp_path, plain, replace(plain, model="student", value=9.0)) == "student is better"


def test_trainings_pair_by_their_seeds_and_never_with_blocks_of_clips(tmp_path: Path) -> None:
    one, other = replace(TEACHER, model="a", trainings=3), replace(STUDENT, model="b", trainings=3)
    (delta,) = compare_models(write_run(tmp_path, one, other), "a", "b")
    assert (delta.basis, delta.interval) == ("paired trainings", paired_interval(one.blocks, other.blocks)[1:])
    half = 1.96 * math.hypot(0.1, 0.1)
    for trainings in (1, 2):
        mixed = write_run(tmp_path, replace(one, trainings=trainings), other, name=f"mixed{trainings}")
        (delta,) = compare_models(mixed, "a", "b")
        assert delta.basis == "standard errors"
        assert delta.interval == pytest.approx((3 - half, 3 + half))
    runs = [write_run(tmp_path, each, name=each.model) for each in (one, other)]
    first, second = (find_result_set(f"{run.name}:{run.name}", Store(tmp_path)) for run in runs)
    (delta,) = compare_result_sets(first, second)
    assert (delta.basis, delta.interval) == ("unpaired trainings", welch_interval(one.blocks, other.blocks))


@pytest.mark.parametrize("trainings", [0, -1, 1.5, True, "3", None])
def test_a_count_of_trainings_that_is_none_is_refused(tmp_path: Path, trainings: object) -> None:
    run = write_run(tmp_path, TEACHER)
    line = json.loads((run / "results.jsonl").read_text())
    (run / "results.jsonl").write_text(json.dumps({**line, "trainings": trainings}) + "\n")
    with pytest.raises(BenchError, match="the trainings of fvd are no count"):
        read_records(run)


def test_runs_of_before_have_one_training_and_roles_by_name(tmp_path: Path) -> None:
    run = write_run(tmp_path, TEACHER, replace(TEACHER, model="6 steps"), replace(TEACHER, model="real"))
    lines = [json.loads(line) for line in (run / "results.jsonl").read_text().splitlines()]
    for line in lines:
        del line["trainings"]
    (run / "results.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    records = read_records(run)
    assert [record.score.trainings for record in records] == [1, 1, 1]
    assert [record.row.role for record in records] == ["teacher", "student", "reference"]
    assert [record.row.recipe for record in records] == ["", "", ""]


def test_rows_say_what_made_them_and_what_they_are_to_the_baseline(tmp_path: Path) -> None:
    name = 'int8, "6 steps" <b>'
    run = write_run(tmp_path, TEACHER, replace(TEACHER, model=name))
    measures = ["sample: steps=6", "accelerate: torchao int8_weight_only"]
    record = json.loads((run / "run.json").read_text())
    record |= {"baseline": name, "models": {"teacher": {"measures": []}, name: {"measures": measures, "trainings": 1}}}
    (run / "run.json").write_text(json.dumps(record))
    teacher, own = (each.row for each in read_records(run))
    assert (teacher.role, teacher.recipe) == ("student", "")
    assert (own.role, own.recipe) == ("teacher", "; ".join(measures))


def test_one_slow_round_does_not_hide_a_faster_student(tmp_path: Path) -> None:
    slow = replace(TEACHER, metric="latency_denoiser", blocks=(10.0, 10.1, 9.9, 10.0, 10.2, 9.8, 10.0, 200.0))
    fast = replace(slow, model="student", value=5.0, blocks=(5.0, 5.1, 4.9, 5.0, 5.2, 4.8, 5.0, 5.0))
    assert verdict(tmp_path, slow, fast) == "student is better"


def test_no_interval_without_pairs_and_no_ratio_to_nothing(tmp_path: Path) -> None:
    zero = replace(TEACHER, value=0.0, blocks=(0.0,), standard_error=None)
    (delta,) = compare_models(write_run(tmp_path, zero, replace(STUDENT, blocks=(1.0,))), "teacher", "student")
    assert delta.interval is None
    assert delta.ratio is None


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"protocol": "p@2"}, "fvd: the protocol differs .teacher p@1, student p@2"),
        ({"metric_version": "2"}, "fvd: the metric version differs"),
        ({"n": 20}, "fvd: the number of samples differs .teacher 30, student 20"),
        ({"value": None, "status": "incomplete"}, "teacher is ok, student is incomplete"),
        # As a job that failed leaves it: that it failed says more than that its version is unknown.
        ({"value": None, "status": "failed", "n": 0, "metric_version": ""}, "teacher is ok, student is failed"),
    ],
)
def test_unlike_results_are_refused(tmp_path: Path, change: dict[str, Any], reason: str) -> None:
    run = write_run(tmp_path, TEACHER, replace(STUDENT, **change))
    with pytest.raises(NotComparableError, match=reason) as caught:
        compare_models(run, "teacher", "student")
    assert caught.value.exit_code == 5


def test_what_is_unavailable_for_both_stops_no_comparison(tmp_path: Path) -> None:
    missing = [replace(s, metric="inception_score_c3d", value=None, status="unavailable") for s in (TEACHER, STUDENT)]
    deltas = compare_models(write_run(tmp_path, TEACHER, STUDENT, *missing), "teacher", "student")
    assert [delta.metric for delta in deltas] == ["fvd"]


def test_only_shared_metrics_are_compared(tmp_path: Path) -> None:
    run = write_run(
        tmp_path, TEACHER, STUDENT, replace(STUDENT, metric="speedup"), replace(STUDENT, model="x", metric="y")
    )
    assert [delta.metric for delta in compare_models(run, "teacher", "student")] == ["fvd"]
    with pytest.raises(NothingMeasuredError, match="share no metric"):
        compare_models(run, "teacher", "x")
    with pytest.raises(NothingMeasuredError, match="no results of 'studnt'; it has student, teacher, x") as caught:
        compare_models(run, "teacher", "studnt")
    assert caught.value.exit_code == 3


def test_the_newest_finished_run_counts(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with pytest.raises(NothingMeasuredError, match="vdmini-bench run"):
        latest_run(store)
    old = write_run(tmp_path, name="20260101T000000_a")
    new = write_run(tmp_path, name="20260102T000000_b", suite="other", status="incomplete")
    write_run(tmp_path, name="20260103T000000_c", status="running")
    assert latest_run(store) == new
    assert latest_run(store, "ucf101") == old
    with pytest.raises(NothingMeasuredError):
        latest_run(store, "none")


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"status": "complete"}'])
def test_a_damaged_record_is_named(tmp_path: Path, text: str) -> None:
    (write_run(tmp_path) / "run.json").write_text(text)
    with pytest.raises(BenchError, match=r"run\.json cannot be read"):
        latest_run(Store(tmp_path), "ucf101")


@pytest.mark.parametrize("text", ["{", "[]", "{}", "null"])
def test_damaged_results_are_named(tmp_path: Path, text: str) -> None:
    run = write_run(tmp_path)
    (run / "results.jsonl").write_text(text)
    with pytest.raises(BenchError, match=r"results\.jsonl cannot be read"):
        read_records(run)


def test_dimensions_that_leave_videos_out_compare_by_those_that_were_asked_for(tmp_path: Path) -> None:
    # The official filter keeps other videos of one model than of another; then nothing is paired.
    a = replace(TEACHER, metric="vbench_temporal_flickering", n=28, n_expected=30, blocks=())
    b = replace(a, model="student", value=11.0, n=25)
    (delta,) = compare_models(write_run(tmp_path, a, b), "teacher", "student")
    assert (delta.delta, delta.basis) == (1.0, "standard errors")
    with pytest.raises(NotComparableError, match="number of samples"):
        compare_models(write_run(tmp_path, a, replace(b, n_expected=60), name="2"), "teacher", "student")
    consistency = [replace(score, metric="vbench_subject_consistency") for score in (a, b)]
    with pytest.raises(NotComparableError, match="number of samples"):
        compare_models(write_run(tmp_path, *consistency, name="3"), "teacher", "student")


def test_times_compare_by_the_ratio_of_their_medians(tmp_path: Path) -> None:
    rounds = (10.0, 10.1, 9.9, 10.0, 10.2, 9.8, 10.0, 200.0)
    slow = replace(TEACHER, metric="latency_denoiser", value=10.0, blocks=rounds)
    fast = replace(slow, model="student", value=5.0, blocks=tuple(each / 2 for each in rounds))
    (delta,) = compare_models(write_run(tmp_path, slow, fast), "teacher", "student")
    assert delta.ratio == 0.5
    # Timed in turn, the slow round slowed both: their ratio is certain.
    assert delta.ratio_interval == pytest.approx((0.5, 0.5))
    assert delta.ratio_interval == median_ratio_interval(slow.blocks, fast.blocks)
    assert delta.interval == median_difference_interval(slow.blocks, fast.blocks)
    assert delta.basis == "paired rounds"
    assert delta.to_json()["ratio_ci"] == list(delta.ratio_interval or ())


def test_real_clips_do_not_pair_with_generated_ones(tmp_path: Path) -> None:
    real = replace(TEACHER, model="real", value=8.0, blocks=(7.0, 8.0, 9.0))
    run = write_run(tmp_path, real, replace(TEACHER, model="static"), STUDENT)
    (delta,) = compare_models(run, "real", "student")
    assert delta.basis == "unpaired blocks"
    assert delta.interval == welch_interval(real.blocks, STUDENT.blocks)
    (delta,) = compare_models(run, "static", "student")
    assert delta.basis == "paired blocks"


def test_the_ends_of_a_speed_ups_interval_are_not_taken_for_samples(tmp_path: Path) -> None:
    speedup = replace(TEACHER, metric="speedup_denoiser", better="higher", standard_error=0.1, blocks=(9.8, 10.2))
    (delta,) = compare_models(write_run(tmp_path, speedup, replace(speedup, model="student")), "teacher", "student")
    assert delta.basis == "standard errors"
    assert delta.interval == pytest.approx((-1.96 * 0.1 * 2**0.5, 1.96 * 0.1 * 2**0.5))


def test_unlike_results_compare_when_told_to_and_are_marked(tmp_path: Path) -> None:
    kvd = replace(TEACHER, metric="kvd")
    other = replace(STUDENT, protocol="p@2", n=20)
    run = write_run(tmp_path, TEACHER, kvd, other, replace(kvd, model="student", value=None, status="failed"))
    fvd, failed = compare_models(run, "teacher", "student", allow_unlike=True)
    assert fvd.unlike == (
        "the protocol differs (teacher p@1, student p@2)",
        "the number of samples differs (teacher 30, student 20)",
    )
    assert fvd.delta == 3.0
    assert failed.verdict == "not compared"
    assert failed.delta is failed.ratio is failed.interval is None
    assert failed.unlike == ("teacher is ok, student is failed",)
