from __future__ import annotations

import time

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vdmini_bench.speed.timing import Timing, peak_memory, speedup_interval, time_interleaved

CPU = torch.device("cpu")
MILLISECONDS = st.floats(0.1, 1000)


def timing(*samples: float) -> Timing:
    return Timing("m", "s", samples, 0)


def test_models_take_turns_and_warmup_is_not_counted() -> None:
    order: list[str] = []
    ticks: list[None] = []
    calls = {"teacher": lambda: order.append("t"), "student": lambda: order.append("s")}
    timings = time_interleaved(calls, scope="denoiser", runs=3, warmup=2, device=CPU, on_run=lambda: ticks.append(None))
    # Five rounds, then one call each for its peak memory.
    assert "".join(order) == "ts" * 6
    assert len(ticks) == 10
    assert [(item.model, item.scope, len(item.samples_ms)) for item in timings] == [
        ("teacher", "denoiser", 3), ("student", "denoiser", 3),
    ]  # fmt: skip


def test_a_slower_call_is_measured_as_slower() -> None:
    calls = {"slow": lambda: time.sleep(0.03), "fast": lambda: time.sleep(0.01)}
    slow, fast = time_interleaved(calls, scope="x", runs=5, warmup=1, device=CPU)
    assert slow.median_ms >= 30
    assert fast.median_ms >= 10
    ratio, low, high = speedup_interval(slow, fast)
    assert ratio > 1
    assert low <= ratio <= high


def test_no_gradient_is_kept_while_timing() -> None:
    weight = torch.ones(2, requires_grad=True)
    kept: list[bool] = []
    time_interleaved({"m": lambda: kept.append((weight * 2).requires_grad)}, scope="x", runs=3, warmup=1, device=CPU)
    assert kept
    assert not any(kept)


def test_median_and_deviation_by_hand() -> None:
    assert (timing(1, 2, 10).median_ms, timing(1, 2, 10).mad_ms) == (2, 1)
    assert (timing(1, 2, 4, 100).median_ms, timing(1, 2, 4, 100).mad_ms) == (3, 1.5)


@given(st.lists(MILLISECONDS, min_size=3, max_size=12))
def test_one_outlier_does_not_move_the_median_out_of_the_rest(samples: list[float]) -> None:
    assert min(samples) <= timing(*samples, 1e9).median_ms <= max(samples)


@given(st.lists(st.tuples(MILLISECONDS, st.floats(1.5, 3)), min_size=3, max_size=20))
@settings(deadline=None, max_examples=30)
def test_the_interval_holds_a_constant_ratio(pairs: list[tuple[float, float]]) -> None:
    student = timing(*(sample for sample, _ in pairs))
    ratio, low, high = speedup_interval(timing(*(2 * sample for sample, _ in pairs)), student)
    assert (ratio, low, high) == pytest.approx((2, 2, 2), rel=1e-4)
    _, low, high = speedup_interval(timing(*(sample * factor for sample, factor in pairs)), student)
    assert low <= high
    assert speedup_interval(student, student) == pytest.approx((1, 1, 1))


def test_the_interval_contains_the_ratio_and_repeats() -> None:
    generator = torch.Generator().manual_seed(3)
    slow = timing(*(20 + torch.rand(10, generator=generator)).tolist())
    fast = timing(*(10 + torch.rand(10, generator=generator)).tolist())
    ratio, low, high = speedup_interval(slow, fast)
    assert 1.8 < low < ratio < high < 2.2
    assert speedup_interval(slow, fast) == (ratio, low, high)


def test_peak_memory_counts_what_is_freed_again() -> None:
    def call() -> object:
        for _ in range(3):
            torch.ones(2**18)
        return None

    # Each tensor is 1 MiB and gone before the next.
    assert 2**20 <= peak_memory(call, CPU) < 2 * 2**20
    assert peak_memory(lambda: [torch.ones(2**18) for _ in range(3)], CPU) >= 3 * 2**20
