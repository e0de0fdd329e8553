"""Time a teacher beside its students, scope by scope, in one process, and keep every sample."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from vdmini.cost import count_parameters
from vdmini.models.registry import VideoModel, family_named
from vdmini_bench.config.timing import STEPS, Scope, SpeedRequest
from vdmini_bench.errors import BenchError
from vdmini_bench.results.score import RESULTS_FILE, Score, origin_of, record_of, result_line, row_of
from vdmini_bench.speed.blocks import BlockCosts, BlockTime, block_costs, time_blocks
from vdmini_bench.speed.gpu_sensor import GpuSensor, SensorWatch, open_sensor
from vdmini_bench.speed.models import TimedModel, attention_backend, load_models
from vdmini_bench.speed.roofline import Roofline, measure_roofline
from vdmini_bench.speed.rows import SpeedRow, make_rows, projected, protocol_of
from vdmini_bench.speed.scopes import (
    PHASES,
    ClipSize,
    TimedClip,
    clip_call,
    decode_call,
    decode_flops,
    default_size,
    denoiser_call,
    latent_size,
)
from vdmini_bench.speed.timing import Timing, device_name, time_interleaved
from vdmini_bench.speed.trace import write_traces
from vdmini_bench.system.files import write_atomically
from vdmini_bench.system.fingerprint import take_fingerprint
from vdmini_bench.system.progress import Advance, progress

RECORD = "speed.json"
# A card or a core whose roofline fell by more between start and end was held back, or had other work.
STEADY = 0.95


@dataclass(frozen=True)
class SpeedReport:
    """What was measured on one machine; `blocks` is empty where it was not asked for."""

    request: SpeedRequest
    family: str
    size: ClipSize
    device: str
    models: dict[str, dict[str, int]]
    rows: tuple[SpeedRow, ...]
    blocks: tuple[BlockTime, ...]
    roofline: Roofline
    roofline_after: Roofline
    notes: tuple[str, ...]

    @property
    def protocol(self) -> str:
        """What two reports must share before their latencies are compared."""
        return protocol_of(self.request, self.size, self.device)

    @property
    def throttled(self) -> bool | None:
        """Whether the card was held back at any run; None where nothing tells."""
        told = [row.sensor["throttled_by"] for row in self.rows if row.sensor["throttled_by"] is not None]
        return any(told) if told else None

    def to_json(self) -> dict[str, Any]:
        """As plain JSON data: everything that was measured, and where."""
        return {
            "model": self.request.model,
            "family": self.family,
            "fingerprint": asdict(take_fingerprint()),
            "request": asdict(self.request),
            "protocol": self.protocol,
            "clip": asdict(self.size),
            "device": self.device,
            "models": self.models,
            "rows": [row.to_json() for row in self.rows],
            "blocks": [block.to_json(self.roofline.flops_per_second) for block in self.blocks],
            "roofline": asdict(self.roofline),
            "roofline_after": asdict(self.roofline_after),
            "throttled": self.throttled,
            "notes": list(self.notes),
        }

    def scores(self) -> list[Score]:
        """Every row's median, and beside it peak memory and speed-up where it has them."""
        return [score for row in self.rows for score in row.scores(self.protocol)]

    def write_record(self, folder: Path) -> None:
        """Leave everything that was measured in a folder, as `speed.json`."""
        write_atomically(folder / RECORD, json.dumps(self.to_json(), indent=1) + "\n")

    def write(self, folder: Path) -> None:
        """Leave `speed.json`, `results.jsonl` for `compare`, and the pictures in a folder."""
        scores = self.scores()
        origin = origin_of(record_of(scores, take_fingerprint(), {}))
        lines = [result_line(score, row_of(score, origin)) for score in scores]
        write_atomically(folder / RESULTS_FILE, "".join(lines))
        if self.blocks:
            from vdmini_bench.speed.plots import plot_roofline, plot_stacks

            plot_stacks(self.blocks, self.request.model, folder / "blocks.png")
            plot_roofline(self.blocks, self.roofline, self.request.model, folder / "roofline.png")
        self.write_record(folder)


def time_models(
    request: SpeedRequest,
    device: torch.device,
    keep: Callable[[Sequence[SpeedRow]], None] = lambda rows: None,
    models: Mapping[str, TimedModel] | None = None,
    trace: Path | None = None,
) -> SpeedReport:
    """Time the teacher and its students in interleaved repetitions, one scope after the other.

    `keep` is given all rows so far after each scope, since a later one may fail or be stopped. `models` are those that
    the request names where they are loaded already, what all are compared with first. `trace` is a folder for a trace
    of each model in each scope.

    Raises:
        SuiteError: what is asked for does not fit the model.
        BenchError: the device cannot do it.
    """
    models = models or {name: TimedModel(model) for name, model in load_models(request, device).items()}
    teacher = next(iter(models.values())).model
    steps = request.steps or STEPS.get(teacher.source, 50)
    size = default_size(teacher, steps)
    height, width = request.size or (size.height, size.width)
    size = ClipSize(request.frames or size.frames, height, width, steps)
    latents = latent_size(teacher, size)
    notes: list[str] = []
    scopes = _possible(request, teacher, notes)
    # A compiled pass has no borders between blocks.
    attributed = request.attributed and not request.compiled
    # Before anything replaces a forward pass: the counts are made on copies.
    costs = {name: block_costs(each.plain.denoiser, latents, with_traffic=attributed) for name, each in models.items()}
    flops = _flops(scopes, models, size, costs)
    sizes = {
        name: {
            "params": count_parameters(timed.plain.denoiser),
            "weight_bytes": sum(each.numel() * each.element_size() for each in timed.model.denoiser.parameters()),
            "flops": costs[name].graph.flops,
        }
        for name, timed in models.items()
    }
    _prepare(request, models, notes)
    sensor, dtype = open_sensor(device), getattr(torch, request.dtype)
    roofline = measure_roofline(device, dtype)
    blocks: list[BlockTime] = []
    rows: list[SpeedRow] = []
    total = len(scopes) * len(models) * (request.runs + request.warmup)
    with attention_backend(request.attention):
        if attributed:
            loaded = {name: each.model for name, each in models.items()}
            calls = {name: (each.denoiser, denoiser_call(each, size, device)) for name, each in loaded.items()}
            blocks = time_blocks(calls, costs, runs=max(3, request.runs // 2), warmup=1, device=device)
        with progress("time", total) as advance:
            for scope in scopes:
                rows += _time_scope(scope, request, models, size, flops, device, sensor, advance, trace)
                keep(rows)
    after = measure_roofline(device, dtype)
    notes += _remarks(rows, roofline, after, device)
    return SpeedReport(
        request, teacher.family, size, device_name(device), sizes, tuple(rows), tuple(blocks), roofline, after,
        tuple(notes),
    )  # fmt: skip


def _prepare(request: SpeedRequest, models: Mapping[str, TimedModel], notes: list[str]) -> None:
    from vdmini.optimization import compile_denoiser, optimize

    for name, timed in models.items():
        model = timed.model
        if request.optimized:
            pipeline = model.pipeline if model.pipeline is not None else model.denoiser
            notes.append(f"{name} optimized: {optimize(pipeline, compiled=request.compiled)}")
        elif request.compiled:
            compile_denoiser(model.denoiser)
    if request.compiled:
        notes.append("blocks are not timed in a compiled pass, which has no such borders")
    if request.random_weights:
        notes.append("random weights: times are the published model's, pictures are noise")


def _possible(request: SpeedRequest, teacher: VideoModel, notes: list[str]) -> list[Scope]:
    chosen = [*request.scopes]
    if teacher.vae is None and "vae_decode" in chosen:
        chosen.remove("vae_decode")
        notes.append("no vae_decode: the source holds no VAE")
    if teacher.pipeline is None and "end_to_end" in chosen:
        chosen.remove("end_to_end")
        notes.append("no end_to_end: the source holds no pipeline, and none is described for random weights")
    if not chosen:
        raise BenchError(f"{request.model}: none of the scopes {', '.join(request.scopes)} can be timed")
    return chosen


def _time_scope(
    scope: Scope, request: SpeedRequest, models: Mapping[str, TimedModel], size: ClipSize,
    flops: dict[tuple[str, str], int], device: torch.device, sensor: GpuSensor | None, advance: Advance,
    trace: Path | None,
) -> list[SpeedRow]:  # fmt: skip
    watch = SensorWatch(sensor)
    # Of a model whose passes vary, one says nothing.
    timed = {name: each for name, each in models.items() if scope != "denoiser" or not each.passes_vary}
    calls = {name: _call(scope, request, each, size, device) for name, each in timed.items()}
    timings = time_interleaved(
        calls, scope=scope, runs=request.runs, warmup=request.warmup, device=device, on_run=advance, watch=watch.around
    )
    # Optimized, such a family reads as much text as a clip's prompt has, and the counts are for all of its tokens.
    counted = not (request.optimized and family_named(next(iter(models.values())).model.family).cuts_text)
    for name, call in calls.items():
        if counted and isinstance(call, TimedClip) and not models[name].passes_vary:
            flops[name, "steps"] = flops[name, "denoiser"] * call.passes
            flops[name, scope] = flops[name, "steps"] + flops[name, "vae_decode"]
    if trace is not None:
        write_traces(calls, scope, trace, device)
    rows = make_rows([*timings, *_phases(calls, request.runs)], flops, watch)
    if scope == "denoiser" and request.projected_steps:
        rows += projected(rows, request.projected_steps)
    return rows


def _call(
    scope: Scope, request: SpeedRequest, timed: TimedModel, size: ClipSize, device: torch.device
) -> Callable[[], object]:
    model = timed.model
    if scope == "denoiser":
        return denoiser_call(model, size, device)
    if scope == "vae_decode":
        return decode_call(model, size, device)
    assert model.pipeline is not None
    steps, guidance = (size.steps, request.guidance) if timed.steps is None else (timed.steps, timed.guidance)
    call = clip_call(model.pipeline, model.family, replace(size, steps=steps), guidance)
    return TimedClip(model.pipeline, call, device)


def _phases(calls: Mapping[str, Callable[[], object]], runs: int) -> list[Timing]:
    """The phases inside each model's clips as timings of their own."""
    clips = {model: call.samples for model, call in calls.items() if isinstance(call, TimedClip)}
    # The last call is made for its peak memory.
    return [
        Timing(model, phase, tuple(samples[phase][-runs - 1 : -1]), None)
        for phase in PHASES
        for model, samples in clips.items()
        if phase in samples
    ]


def _flops(
    scopes: Sequence[Scope], models: Mapping[str, TimedModel], size: ClipSize, costs: Mapping[str, BlockCosts]
) -> dict[tuple[str, str], int]:
    """FLOPs by model and scope; those of a clip, which leave its encoders out, follow from how often it steps."""
    found = {(name, "denoiser"): cost.graph.flops for name, cost in costs.items()}
    if {*scopes} == {"denoiser"}:
        return found
    decodes: dict[int, int] = {}
    for name, timed in models.items():
        model = timed.plain
        if id(model.vae) not in decodes:
            decodes[id(model.vae)] = decode_flops(model, size)
        found[name, "vae_decode"] = decodes[id(model.vae)]
    return found


def _remarks(rows: list[SpeedRow], before: Roofline, after: Roofline, device: torch.device) -> list[str]:
    remarks = []
    if device.type == "cuda" and all(row.sensor["throttled_by"] is None for row in rows):
        remarks.append("clocks and throttling unknown: NVML does not tell; pip install nvidia-ml-py if it is not there")
    clocks = [clock for row in rows for when in ("before", "after") for clock in row.sensor[f"clock_mhz_{when}"] or ()]
    if known := [clock for clock in clocks if clock is not None]:
        remarks.append(f"processor clock {min(known)} to {max(known)} MHz before and after the runs")
    reasons = sorted({reason for row in rows for reason in row.sensor["throttled_by"] or ()})
    if reasons:
        remarks.append(f"THROTTLED by {', '.join(reasons)} in at least one run: the times are not this card's best")
    share = after.flops_per_second / before.flops_per_second
    if not STEADY <= share <= 1 / STEADY:
        remarks.append(
            f"the matrix-product peak went from {before.flops_per_second / 1e12:.4g} to"
            f" {after.flops_per_second / 1e12:.4g} TFLOP/s during the run: the machine was not steady"
        )
    return remarks
