"""The Pareto front by its definition, whatever the rows, and rows beside the baseline with fewer steps."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from results_of_runs import FVD, PARAMS, SPEEDUP, row

from vdmini_bench.compare.pareto import (
    Point,
    beside_fewer_steps,
    dominated,
    dominated_lines,
    fewer_steps,
    main_quality,
    quality_points,
    timed_scope,
)
from vdmini_bench.results.records import Record
from vdmini_bench.results.score import Better, Score

TIME = Score("teacher", "latency_end_to_end", "1", "p", 100.0, "ms", "lower", 1.0, 10, 10, "ok", (99.0, 101.0))
VALUES = st.sampled_from([1.0, 2.0, 3.0, 4.0]) | st.floats(0.01, 1e6)
ROWS = st.lists(st.tuples(VALUES, VALUES), min_size=1, max_size=12).map(
    lambda pairs: [Point(f"{place}, <b>row</b>", *pair) for place, pair in enumerate(pairs)]
)


def records(*scores: Score) -> list[Record]:
    return [Record(score, row(score), "run-1", None) for score in scores]


def no_worse(one: Point, other: Point, better: Better) -> bool:
    return one.latency <= other.latency and (
        one.quality <= other.quality if better == "lower" else one.quality >= other.quality
    )


@given(ROWS, st.sampled_from(["lower", "higher"]))
def test_a_dominated_row_is_never_on_the_front_and_all_others_are(points: list[Point], better: Better) -> None:
    found = dominated(points, better)
    front = [point for point in points if point.model not in found]
    assert front
    for point in points:
        stronger = [other for other in points if no_worse(other, point, better) and not no_worse(point, other, better)]
        assert bool(stronger) == (point.model in found)
    by_name = {point.model: point for point in points}
    for model, other in found.items():
        assert other in front
        assert no_worse(other, by_name[model], better)
    assert {*dominated(points[::-1], better)} == {*found}
    assert len(dominated_lines(points, better)) == len(found)


def test_dominated_rows_are_named_in_words() -> None:
    points = [Point("teacher", 1.0, 10), Point("int8", 1.2, 10), Point("slow", 1.2, 12), Point("bad", 1.0, 30)]
    assert dominated_lines(points, "lower") == [
        "int8 is slower and no better than teacher",
        "slow is slower and worse than teacher",
        "bad is worse and no faster than teacher",
    ]
    assert dominated(points, "higher")["teacher"].model == "bad"


def test_latencies_are_relative_by_what_was_timed_together() -> None:
    teacher = [TIME, replace(FVD, model="teacher", value=300.0)]
    fast = [
        replace(SPEEDUP, model="fast", metric="speedup_end_to_end", value=2.0, standard_error=0.1),
        # Its own median says otherwise, since the machine was slower then.
        replace(TIME, model="fast", value=80.0),
        replace(FVD, model="fast"),
    ]
    alone = [replace(TIME, model="alone", value=25.0, standard_error=None), replace(FVD, model="alone")]
    scores = records(*teacher, *fast, *alone, replace(FVD, model="real"))
    assert (main_quality(scores), timed_scope(scores)) == ("fvd", "end_to_end")
    points = {point.model: point for point in quality_points(scores, "fvd", "end_to_end", "teacher")}
    assert [*points] == ["teacher", "fast", "alone"]
    assert points["teacher"].latency == 1
    assert (points["fast"].latency, points["fast"].latency_error) == (0.5, pytest.approx(0.025))
    assert (points["alone"].latency, points["alone"].latency_error) == (0.25, pytest.approx(0.0025))
    assert quality_points(scores, "fvd", "denoiser", "teacher") == []


def test_quality_is_no_cost_and_no_fidelity() -> None:
    psnr = replace(FVD, metric="psnr", better="higher")
    assert main_quality(records(PARAMS, SPEEDUP, TIME, psnr, replace(FVD, metric="ssim"))) is None
    own = replace(FVD, metric="kvd")
    assert main_quality(records(psnr, own, replace(FVD, metric="embedded-motion"))) == "embedded-motion"
    assert main_quality(records(own, replace(FVD, value=None, status="failed"))) == "kvd"
    assert main_quality(records(replace(own, better="neither"))) is None


MODELS = {
    "teacher": (),
    "6 steps": ("sample: steps=6",),
    "3 steps": ("sample: steps=3",),
    "guided": ("sample: steps=6, guidance=2",),
    "student": ("denoiser: plan=vdmini; distilled",),
}
CURVE = [Point("3 steps", 0.25, 400), Point("6 steps", 0.5, 300), Point("teacher", 1.0, 200)]


def test_only_rows_of_fewer_steps_alone_are_on_the_curve() -> None:
    others = [Point("student", 0.4, 300), Point("guided", 0.5, 1), Point("unknown", 0.5, 1)]
    assert fewer_steps([*others, *CURVE[::-1]], MODELS, "teacher") == CURVE
    assert fewer_steps(others, MODELS, "teacher") == []
    assert fewer_steps([CURVE[2]], MODELS, "teacher") == []
    # Runs of before say nothing of their models.
    assert fewer_steps(CURVE, {}, "teacher") == []


@given(st.floats(0.01, 3), st.floats(1, 1000))
def test_a_row_beats_fewer_steps_where_it_lies_below_their_line(latency: float, value: float) -> None:
    reached = 400 - (latency - 0.25) * 400 if latency < 0.5 else 300 - (latency - 0.5) * 200
    reached = min(400.0, max(200.0, reached))
    (line,) = beside_fewer_steps([*CURVE, Point("mine", latency, value)], CURVE, "lower", "teacher")
    if abs(value - reached) > 1e-6:
        assert ("is better than teacher with fewer steps" in line) == (value < reached)
    if latency < 0.25 and value > reached:
        assert line == "mine is faster than 3 steps and no better: no fewer steps were measured"
    mirrored = [replace(point, quality=-point.quality) for point in (*CURVE, Point("mine", latency, value))]
    (same,) = beside_fewer_steps(mirrored, mirrored[:3], "higher", "teacher")
    assert same.partition(":")[0] == line.partition(":")[0]
    assert beside_fewer_steps(mirrored, [], "higher", "teacher") == []
