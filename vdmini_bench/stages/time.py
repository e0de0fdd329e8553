"""Time teacher and student side by side: one denoiser pass, the VAE decode and a whole clip."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKLTemporalDecoder
from diffusers.pipelines.pipeline_utils import DiffusionPipeline

from vdmini.blocks import ModelInput
from vdmini.cost import count_flops, count_parameters
from vdmini.models import family_of, pipeline_denoiser
from vdmini.sample import ClipRequest, sample_clips
from vdmini_bench.measurement import Better, Score
from vdmini_bench.progress import progress
from vdmini_bench.timing import Timing, speedup_interval, time_interleaved
from vdmini_bench.workbench import CommonBench, write_scores

TIMINGS = "timings.jsonl"
MODELS = ("teacher", "student")
VERSION = "1"


def run_stage(bench: CommonBench, subject: str, folder: Path) -> None:
    """Write every timed run, and per model its parameters, FLOPs, latencies, peak memory and speed-up."""
    models = {name: bench.load_pipeline(name) for name in MODELS}
    spec = bench.suite.profile.timing
    timings: list[Timing] = []
    scopes = {"denoiser": _denoiser_call, "vae_decode": _decode_call, "end_to_end": _clip_call}
    with progress("time", len(scopes) * len(MODELS) * (spec.runs + spec.warmup)) as advance:
        for scope, call_of in scopes.items():
            calls = {name: call_of(bench, model) for name, model in models.items()}
            timings += time_interleaved(
                calls, scope=scope, runs=spec.runs, warmup=spec.warmup, device=bench.device, on_run=advance
            )
    lines = [json.dumps(asdict(timing)) for timing in timings]
    (folder / TIMINGS).write_text("\n".join(lines) + "\n")
    scores = [score for name, model in models.items() for score in _size_scores(bench, name, model)]
    write_scores(folder, bench, scores + _timing_scores(bench, timings))


def _size_scores(bench: CommonBench, name: str, model: DiffusionPipeline) -> list[Score]:
    clip = _clip_protocol(bench)
    denoiser = pipeline_denoiser(model)
    flops = count_flops(denoiser, _denoiser_inputs(bench, model))
    return [
        _score(name, "params_m", "model", count_parameters(denoiser) / 1e6, "M", "lower"),
        _score(name, "denoiser_gflops", clip, flops / 1e9, "GFLOP", "lower"),
    ]


def _timing_scores(bench: CommonBench, timings: list[Timing]) -> list[Score]:
    clip = _clip_protocol(bench)
    scores = []
    by_model = {(timing.model, timing.scope): timing for timing in timings}
    for timing in timings:
        runs = len(timing.samples_ms)
        latency = _score(timing.model, f"latency_{timing.scope}", clip, timing.median_ms, "ms", "lower", runs)
        scores.append(
            Score(**{**asdict(latency), "standard_error": _median_error(timing), "blocks": timing.samples_ms})
        )
        memory = f"peak_memory_{timing.scope}"
        scores.append(_score(timing.model, memory, clip, timing.peak_bytes / 2**20, "MiB", "lower"))
        if timing.model == "student":
            ratio, low, high = speedup_interval(by_model["teacher", timing.scope], timing)
            speedup = _score("student", f"speedup_{timing.scope}", clip, ratio, "x", "higher", runs)
            # A 95 % interval is 3.92 standard errors wide.
            scores.append(Score(**{**asdict(speedup), "standard_error": (high - low) / 3.92, "blocks": (low, high)}))
    return scores


def _median_error(timing: Timing) -> float:
    """The standard error of a median of normal samples from their MAD: 1.2533 * 1.4826 * MAD / sqrt(n)."""
    return 1.2533 * 1.4826 * timing.mad_ms / math.sqrt(len(timing.samples_ms))


def _score(model: str, metric: str, protocol: str, value: float, unit: str, better: Better, n: int = 1) -> Score:
    return Score(model, metric, VERSION, protocol, value, unit, better, None, n, n, "ok")


def _clip_protocol(bench: CommonBench) -> str:
    settings = bench.sample_settings
    size = f"{settings.frames}x{settings.height}x{settings.width}"
    return f"{size}/{settings.steps}steps/batch1/{bench.suite.profile.dtype}"


def _latent_shape(bench: CommonBench, model: DiffusionPipeline) -> tuple[int, int, int]:
    settings, run = bench.sample_settings, _components(model)
    factor = 2 ** (len(run.vae.config.block_out_channels) - 1)
    return settings.frames, settings.height // factor, settings.width // factor


def _denoiser_inputs(bench: CommonBench, model: DiffusionPipeline) -> dict[str, Any]:
    """Arguments of one pass at the profile's clip size, without guidance: batch 1, random latents and conditions."""
    frames, height, width = _latent_shape(bench, model)
    denoiser, generator = pipeline_denoiser(model), torch.Generator().manual_seed(0)
    shapes = family_of(denoiser).example_inputs(denoiser, ModelInput(1, frames, height, width))
    dtype = next(denoiser.parameters()).dtype
    inputs = {}
    for name, shape in shapes.items():
        # Latents and states of a text or an image; all others are numbers such as the timestep and the frame rate.
        if shape.ndim > 2:
            value = torch.randn(shape.shape, generator=generator).to(dtype)
        else:
            value = torch.zeros(shape.shape, dtype=dtype if shape.ndim == 2 else torch.float32)
        inputs[name] = value.to(bench.device)
    return inputs


def _denoiser_call(bench: CommonBench, model: DiffusionPipeline) -> Callable[[], object]:
    inputs, denoiser = _denoiser_inputs(bench, model), pipeline_denoiser(model)
    return lambda: denoiser(**inputs)


def _decode_call(bench: CommonBench, model: DiffusionPipeline) -> Callable[[], object]:
    vae = _components(model).vae
    frames, height, width = _latent_shape(bench, model)
    latents = torch.randn(frames, vae.config.latent_channels, height, width, generator=torch.Generator().manual_seed(0))
    latents = latents.to(bench.device, vae.dtype)
    if isinstance(vae, AutoencoderKLTemporalDecoder):
        return lambda: vae.decode(latents, num_frames=frames)
    return lambda: vae.decode(latents)


def _clip_call(bench: CommonBench, model: DiffusionPipeline) -> Callable[[], object]:
    settings = bench.sample_settings
    image = np.full((settings.height, settings.width, 3), 127, dtype=np.uint8)
    request = [ClipRequest("timed", 0, image, "a grey wall")]
    return lambda: sample_clips(model, request, settings)


def _components(model: DiffusionPipeline) -> Any:
    """The pipeline, whose parts are known by name alone."""
    return model
