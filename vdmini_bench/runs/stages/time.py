"""Time teacher and student side by side: one denoiser pass, the VAE decode and a whole clip."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from vdmini.cost import count_flops, count_parameters
from vdmini.models.registry import VideoModel, family_named
from vdmini.sample import sample_video, to_pixels
from vdmini_bench.compare.comparability import is_of_a_machine
from vdmini_bench.config.timing import SpeedRequest
from vdmini_bench.results.score import Better, Score
from vdmini_bench.speed.rows import VERSION, latency_score, protocol_of
from vdmini_bench.speed.scopes import (
    ClipSize,
    decode_call,
    denoiser_call,
    denoiser_inputs,
    latent_size,
    timed_request,
)
from vdmini_bench.speed.timing import Timing, device_name, speedup_interval, time_interleaved
from vdmini_bench.suites.context import CommonBench, write_scores
from vdmini_bench.system.progress import progress

TIMINGS = "timings.jsonl"
MODELS = ("teacher", "student")
COUNTED_VERSION = "1"


def run_stage(bench: CommonBench, subject: str, folder: Path) -> None:
    """Write every timed run, and per model its parameters, FLOPs, latencies, peak memory and speed-up."""
    models = {name: bench.load_whole(name) for name in MODELS}
    size, spec = _clip_size(bench), bench.suite.profile.timing
    timings: list[Timing] = []
    scopes: dict[str, Callable[[VideoModel], Callable[[], object]]] = {
        "denoiser": lambda model: denoiser_call(model, size, bench.device),
        "vae_decode": lambda model: decode_call(model, size, bench.device),
        "end_to_end": lambda model: _clip_call(bench, model),
    }
    with progress("time", len(scopes) * len(MODELS) * (spec.runs + spec.warmup)) as advance:
        for scope, call_of in scopes.items():
            calls = {name: call_of(model) for name, model in models.items()}
            timings += time_interleaved(
                calls, scope=scope, runs=spec.runs, warmup=spec.warmup, device=bench.device, on_run=advance
            )
    lines = [json.dumps(asdict(timing)) for timing in timings]
    (folder / TIMINGS).write_text("\n".join(lines) + "\n")
    scores = [score for name, model in models.items() for score in _size_scores(bench, name, model)]
    protocol = _protocol(bench, models["teacher"].family)
    write_scores(folder, bench, scores + _timing_scores(protocol, timings))


def _size_scores(bench: CommonBench, name: str, model: VideoModel) -> list[Score]:
    size = _clip_size(bench)
    clip = f"{size}/{size.steps}steps/batch1/{bench.suite.profile.dtype}"
    inputs = denoiser_inputs(model.denoiser, latent_size(model, size), bench.device)
    flops = count_flops(model.denoiser, inputs)
    return [
        _score(name, "params_m", "model", count_parameters(model.denoiser) / 1e6, "M", "lower"),
        _score(name, "denoiser_gflops", clip, flops / 1e9, "GFLOP", "lower"),
    ]


def _timing_scores(protocol: str, timings: list[Timing]) -> list[Score]:
    scores = []
    by_model = {(timing.model, timing.scope): timing for timing in timings}
    for timing in timings:
        runs = len(timing.samples_ms)
        scores.append(latency_score(timing, protocol))
        memory = f"peak_memory_{timing.scope}"
        scores.append(_score(timing.model, memory, protocol, timing.peak_bytes / 2**20, "MiB", "lower"))
        if timing.model == "student":
            ratio, low, high = speedup_interval(by_model["teacher", timing.scope], timing)
            speedup = _score("student", f"speedup_{timing.scope}", protocol, ratio, "x", "higher", runs)
            # A 95 % interval is 3.92 standard errors wide.
            scores.append(Score(**{**asdict(speedup), "standard_error": (high - low) / 3.92, "blocks": (low, high)}))
    return scores


def _score(model: str, metric: str, protocol: str, value: float, unit: str, better: Better, n: int = 1) -> Score:
    version = VERSION if is_of_a_machine(metric) else COUNTED_VERSION
    return Score(model, metric, version, protocol, value, unit, better, None, n, n, "ok")


def _protocol(bench: CommonBench, family: str) -> str:
    """The protocol that `vdmini-bench time` has for the same clip."""
    settings, profile = bench.sample_settings, bench.suite.profile
    guidance = settings.guidance
    if family_named(family).from_image:
        guidance = None if settings.max_guidance == 1 else settings.max_guidance
    asked = SpeedRequest(profile.teacher, dtype=profile.dtype, guidance=guidance)
    return protocol_of(asked, _clip_size(bench), device_name(bench.device))


def _clip_size(bench: CommonBench) -> ClipSize:
    settings = bench.sample_settings
    return ClipSize(settings.frames, settings.height, settings.width, settings.steps)


def _clip_call(bench: CommonBench, model: VideoModel) -> Callable[[], object]:
    """A whole clip as the profile samples it."""
    settings = bench.sample_settings
    request = [timed_request(model.family, settings.height, settings.width)]
    pipeline = model.pipeline
    assert pipeline is not None
    # The clip itself is looked at where it is sampled to be scored.
    return lambda: to_pixels(sample_video(pipeline, request, settings))
