"""Rows of timings: ratios with their intervals, what FLOPs would give, and projections."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vdmini_bench.compare.deltas import compare_result_sets
from vdmini_bench.compare.result_sets import ResultSet, find_result_set
from vdmini_bench.errors import NotComparableError
from vdmini_bench.results.score import origin_of, record_of, result_line, row_of
from vdmini_bench.results.stats import median_ratio_interval
from vdmini_bench.results.store import Store
from vdmini_bench.speed.gpu_sensor import SensorWatch
from vdmini_bench.speed.rows import SpeedRow, make_rows, projected, row_lines
from vdmini_bench.speed.timing import Timing
from vdmini_bench.system.fingerprint import Fingerprint, take_fingerprint

TEACHER = Timing("teacher", "denoiser", (10.0, 11.0, 12.0, 10.5, 11.5), 500, 90.0)
STUDENT = Timing("vdmini", "denoiser", (5.0, 5.5, 6.0, 5.25, 5.75), 400, 30.0)
FLOPS = {("teacher", "denoiser"): 3_000_000, ("vdmini", "denoiser"): 1_000_000}


def rows() -> list[SpeedRow]:
    return make_rows([TEACHER, STUDENT], FLOPS, SensorWatch(None))


def test_a_row_says_what_was_measured_and_what_flops_alone_would_give() -> None:
    teacher, student = (row.to_json() for row in rows())
    assert (teacher["speedup"], teacher["speedup_ci"], teacher["verdict"]) == (None, None, "")
    assert student["speedup"] == pytest.approx(2.0)
    assert student["flop_speedup"] == 3.0
    assert student["verdict"] == "faster"
    assert (student["median_ms"], student["mad_ms"], student["first_ms"], student["peak_bytes"]) == (5.5, 0.25, 30, 400)
    assert student["tflops_per_s"] == pytest.approx(1e6 / 5.5e-3 / 1e12)
    assert student["samples_ms"] == [5.0, 5.5, 6.0, 5.25, 5.75]


def test_the_95th_percentile_lies_between_the_two_nearest_runs() -> None:
    samples = tuple(float(each) for each in range(1, 21))
    assert Timing("m", "s", samples, 0).p95_ms == pytest.approx(np.quantile(samples, 0.95))


def test_a_projection_multiplies_times_and_flops_and_keeps_the_ratio() -> None:
    one, many = rows()[1], projected(rows(), 50)[1]
    assert many.timing.scope == "steps_projected"
    assert many.timing.median_ms == pytest.approx(50 * one.timing.median_ms)
    assert many.flops == 50_000_000
    assert (many.speedup, many.speedup_ci) == (one.speedup, one.speedup_ci)


def test_the_table_has_a_cell_for_every_column() -> None:
    header, lines = row_lines([*rows(), *projected(rows(), 50)])
    assert {len(line) for line in lines} == {len(header)}
    assert lines[1][header.index("verdict")] == "faster"


def test_a_row_of_a_card_that_was_held_back_is_marked() -> None:
    held = replace(rows()[1], sensor={**rows()[1].sensor, "throttled_by": ["power cap"]})
    header, lines = row_lines([rows()[0], held, replace(held, verdict="")])
    assert [line[header.index("verdict")] for line in lines] == ["-", "faster, THROTTLED", "THROTTLED"]


def test_energy_has_a_column_where_a_card_counts_it() -> None:
    assert "J" not in row_lines(rows())[0]
    counted = replace(rows()[1], sensor={**rows()[1].sensor, "energy_j": 12.5})
    header, lines = row_lines([rows()[0], counted])
    assert [line[header.index("J")] for line in lines] == ["-", "12.5"]


def test_compare_reads_the_rows_with_the_ratio_of_medians_and_its_interval(tmp_path: Path) -> None:
    same = Timing("same", "denoiser", (10.2, 10.8, 12.1, 10.4, 11.6), 500)
    timed = make_rows([TEACHER, STUDENT, same], {}, SensorWatch(None))
    scores = [score for row in timed for score in row.scores("14x576x1024")]

    def sides(fingerprint: Fingerprint, *models: str) -> list[ResultSet]:
        folder = tmp_path / fingerprint.machine_id
        folder.mkdir(exist_ok=True)
        origin = origin_of(record_of((), fingerprint, {}))
        lines = [result_line(score, row_of(score, origin)) for score in scores]
        (folder / "results.jsonl").write_text("".join(lines))
        return [find_result_set(f"{folder}:{model}", Store(tmp_path)) for model in models]

    here = take_fingerprint()
    teacher, student, other = sides(here, "teacher", "vdmini", "same")
    faster = compare_result_sets(teacher, student)[0].to_json()
    low, high = faster["ratio_ci"]
    assert low <= faster["ratio"] == 0.5 <= high < 1
    assert faster["basis"] == "paired rounds"
    assert faster["verdict"] == "vdmini is better"
    assert compare_result_sets(teacher, other)[0].verdict == "no difference shown"
    elsewhere = sides(replace(here, machine_id="another"), "vdmini")[0]
    with pytest.raises(NotComparableError, match="machine"):
        compare_result_sets(teacher, elsewhere)


@given(st.lists(st.floats(0.1, 1000), min_size=2, max_size=20), st.floats(0.1, 10))
def test_the_interval_of_a_constant_ratio_is_that_ratio(samples: list[float], factor: float) -> None:
    low, high = median_ratio_interval(samples, [factor * sample for sample in samples])
    assert (low, high) == pytest.approx((factor, factor))


def test_ratios_of_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="positive"):
        median_ratio_interval([0.0, 1.0], [1.0, 1.0])
    with pytest.raises(ValueError, match="pairs"):
        median_ratio_interval([1.0], [1.0])
