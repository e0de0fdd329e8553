"""Timing that compares: models interleaved in one run, CUDA events on a GPU, a monotonic clock on a CPU."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import numpy as np
import torch

from vdmini_bench.results.stats import median_ratio_interval


@dataclass(frozen=True)
class Timing:
    """The runs of one model in one scope, in milliseconds and in the order they ran.

    `peak_bytes` is what a call allocates above what was there before it, None for what is but a part of the runs.
    `first_ms` is the very first run, warm-up included: what is compiled or loaded once is in it.
    """

    model: str
    scope: str
    samples_ms: tuple[float, ...]
    peak_bytes: int | None
    first_ms: float | None = None

    @property
    def median_ms(self) -> float:
        """The median run."""
        return statistics.median(self.samples_ms)

    @property
    def mad_ms(self) -> float:
        """The median absolute deviation from the median."""
        middle = self.median_ms
        return statistics.median(abs(sample - middle) for sample in self.samples_ms)

    @property
    def median_error_ms(self) -> float:
        """The standard error of a median of normal samples from their MAD: 1.2533 * 1.4826 * MAD / sqrt(n)."""
        return 1.2533 * 1.4826 * self.mad_ms / math.sqrt(len(self.samples_ms))

    @property
    def p95_ms(self) -> float:
        """The 95th percentile of the runs, between the two nearest ones."""
        return float(np.quantile(self.samples_ms, 0.95))


def time_interleaved(
    calls: Mapping[str, Callable[[], object]],
    *,
    scope: str,
    runs: int,
    warmup: int,
    device: torch.device,
    on_run: Callable[[], None] = lambda: None,
    watch: Callable[[str], AbstractContextManager[object]] = nullcontext,
) -> list[Timing]:
    """Run the models' calls in interleaved repetitions, `runs` after `warmup`, so that a slow spell hits all alike.

    `watch` is entered with the model's name around each run that counts, outside what is timed.
    """
    samples: dict[str, list[float]] = {model: [] for model in calls}
    first: dict[str, float] = {}
    with torch.inference_mode():
        for repetition in range(warmup + runs):
            counts = repetition >= warmup
            for model, call in calls.items():
                with watch(model) if counts else nullcontext():
                    elapsed = time_once(call, device)
                first.setdefault(model, elapsed)
                if counts:
                    samples[model].append(elapsed)
                on_run()
        peaks = {model: peak_memory(call, device) for model, call in calls.items()}
    return [Timing(model, scope, tuple(samples[model]), peaks[model], first[model]) for model in calls]


def peak_memory(call: Callable[[], object], device: torch.device) -> int:
    """Bytes a call allocates at its peak, above what was allocated before it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        call()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        call()
    allocated = peak = 0
    for event in profile.profiler.kineto_results.events():
        if event.name() == "[memory]":
            allocated += event.nbytes()
            peak = max(peak, allocated)
    return peak


def speedup_interval(teacher: Timing, student: Timing) -> tuple[float, float, float]:
    """The ratio of medians teacher / student with its 95 % bootstrap interval over paired repetitions."""
    return teacher.median_ms / student.median_ms, *median_ratio_interval(student.samples_ms, teacher.samples_ms)


def device_name(device: torch.device) -> str:
    """The card's name, or cpu."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def time_once(call: Callable[[], object], device: torch.device) -> float:
    """Milliseconds of one call; on CUDA by events, from when the device has nothing else to do."""
    if device.type != "cuda":
        started = time.perf_counter_ns()
        call()
        return (time.perf_counter_ns() - started) / 1e6
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    # Of the device that is timed, which need not be torch's current one.
    stream = torch.cuda.current_stream(device)
    torch.cuda.synchronize(device)
    start.record(stream)
    call()
    end.record(stream)
    torch.cuda.synchronize(device)
    return float(start.elapsed_time(end))
