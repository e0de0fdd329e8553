"""What sampling and training would take on a named card, before there is one, by sizes alone.

Times are predictions: FLOPs over a share of the card's peak. Memory is that of tensors; what kernels take for
themselves is not seen. Models are counted before channels go, so rows with a rule for channels take less.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from vdmini.blocks import ModelInput
from vdmini.conditioning import conditioning_of
from vdmini.cost import AssumedValues, count_flops, count_parameters, is_shape
from vdmini.distill.estimate import Estimate, PeakMemory
from vdmini.models.folders import files_dtype, weights_files
from vdmini.models.loading import load_model
from vdmini.models.registry import DENOISERS, OFFICIAL, VideoModel, family_named
from vdmini.prune import apply_plan
from vdmini.requests import SampleSettings
from vdmini_bench.config.suite import Suite
from vdmini_bench.config.vbench import VBenchSuite
from vdmini_bench.distill.estimate import USABLE, estimate_memory
from vdmini_bench.errors import SuiteError
from vdmini_bench.models.random_pipelines import build_pipeline
from vdmini_bench.models.source import expert_count
from vdmini_bench.results.store import Store
from vdmini_bench.speed.cards import Card, card_named
from vdmini_bench.speed.scopes import (
    ClipSize,
    Decoding,
    Encoding,
    decode_flops,
    decode_latents,
    encode_pixels,
    latent_size,
)
from vdmini_bench.suites.context import SuiteContext
from vdmini_bench.suites.job_graph import Job, Model
from vdmini_bench.suites.kind import kind_of

GIB = 2**30
# The published configuration that a hub's or a documented name stands for, where its files are not here.
CONFIGURATIONS = {
    "stabilityai/stable-video-diffusion-img2vid": "svd",
    "stabilityai/stable-video-diffusion-img2vid-xt": "svd-xt",
    "models/t2v-turbo-v2": "t2v-turbo-v2",
    "hunyuanvideo-community/HunyuanVideo": "hunyuanvideo",
    "Wan-AI/Wan2.1-T2V-1.3B-Diffusers": "wan2.1-t2v-1.3b",
}


# At most: of videos near lossless, and lossless, with noise in every pixel.
BYTES_PER_PIXEL = {".mp4": 0.6, ".mkv": 2}
BEFORE_CHANNELS = "at most: counted before its channels go"


@dataclass(frozen=True)
class Stage:
    """A job on a card: bytes at its worst moment and on disk, predicted seconds, and what would make it fit."""

    job: str
    peak_bytes: int
    disk_bytes: int
    seconds: float
    fits: bool
    advice: str


def stages_on(suite: Suite | VBenchSuite, store: Store, name: str) -> list[Stage]:
    """Encoding, distillation and sampling of every row on a card, in the order of the run.

    Raises:
        SuiteError: no card has that name, or the teacher's sizes are not known here.
    """
    card = card_named(name)
    context = kind_of(suite).open(store, remember=False)
    assert isinstance(context, SuiteContext)
    return [*_stages(context, card)]


def _stages(context: SuiteContext, card: Card) -> Iterator[Stage]:
    profile, sized, encoders = context.suite.profile, cache(sized_model), cache(_encoder_weights)
    # Rows of equal sizes take the same.
    known: dict[str, Stage] = {}
    for job in (each for each in context.jobs.values() if each.stage in ("encode", "distill", "sample")):
        model = context.graph.models[job.subject or profile.baseline]
        spec = model.spec
        asked = spec.distill.model_dump() if job.stage == "distill" and spec.distill else spec.sample.model_dump()
        key = repr((job.stage, spec.source, context.prunings[model.row].plan, spec.decoder, asked))
        if key not in known:
            source = spec.source or profile.teacher
            teacher = sized(source, context.teacher if spec.source is None else model.teacher[0])
            beside = encoders(source, context.teacher if spec.source is None else model.teacher[0])
            if job.stage == "distill":
                known[key] = _distilled(context, job, model, teacher, card)
            else:
                estimated = _sampled if job.stage == "sample" else _encoded
                known[key] = estimated(context, job, model, teacher, beside, card)
        stage = replace(known[key], job=job.name)
        # Not refused for what it would take before its channels are gone.
        yield stage if spec.channels is None or stage.fits else replace(stage, fits=True, advice=BEFORE_CHANNELS)


def sized_model(source: str, folder: str) -> VideoModel:
    """A model by its sizes: from its files where they are here, else as it was published."""
    if folder:
        return load_model(folder, device="meta")
    if source not in CONFIGURATIONS:
        raise SuiteError(f"{source} is not here, and its sizes are not known: give a folder, or --download")
    return load_model(CONFIGURATIONS[source], random_weights=True, device="meta")


def _encoder_weights(source: str, folder: str) -> int:
    """How many weights a pipeline has beside its denoiser and VAE: text and image encoders."""
    if not folder:
        with torch.device("meta"):
            denoiser, vae = family_named(OFFICIAL[CONFIGURATIONS[source]]).build_official(CONFIGURATIONS[source])
        pipeline = build_pipeline(CONFIGURATIONS[source], denoiser, vae, 1.0)
        parts = pipeline.components.values() if pipeline is not None else ()
        return sum(
            count_parameters(part) for part in parts if isinstance(part, nn.Module) and part not in (denoiser, vae)
        )
    others = [part for part in Path(folder).iterdir() if part.is_dir() and part.name not in (*DENOISERS, "vae")]
    files = [file for part in others if (found := weights_files(part)) is not None for file in found[1]]
    return sum(file.stat().st_size // files_dtype([file]).itemsize for file in files)


def _clip_size(context: SuiteContext, model: Model) -> ClipSize:
    settings = context.sample_settings(model.row)
    return ClipSize(settings.frames, settings.height, settings.width, settings.steps)


def _encoded(context: SuiteContext, job: Job, model: Model, teacher: VideoModel, encoders: int, card: Card) -> Stage:
    size, dtype = _clip_size(context, model), getattr(torch, context.suite.profile.dtype)
    count, latents = context.suite.profile.train_clips, latent_size(teacher, size)
    shapes = conditioning_of(teacher.denoiser).clip_shapes(teacher.denoiser, latents)
    disk = 4 * count * sum(map(math.prod, shapes.values()))
    if teacher.vae is None:
        return Stage(job.name, 0, disk, 0, True, "")
    flops = count_flops(Encoding(teacher.vae), {"pixels": encode_pixels(teacher, size)})
    peak = _peak(Encoding(teacher.vae), {"pixels": encode_pixels(teacher, size)}, dtype)
    peak += _weight_bytes(teacher.denoiser, dtype) + encoders * dtype.itemsize
    fits = peak <= USABLE * card.gib * GIB
    seconds = card.seconds(flops * count, dtype != torch.float32)
    return Stage(job.name, peak, disk, seconds, fits, "" if fits else "fewer frames, or a larger card")


def _distilled(context: SuiteContext, job: Job, model: Model, teacher: VideoModel, card: Card) -> Stage:
    recipe = context.recipe(job.subject)
    distill = model.spec.distill
    assert distill is not None
    shapes = conditioning_of(teacher.denoiser).clip_shapes(
        teacher.denoiser, latent_size(teacher, _clip_size(context, model))
    )
    found = estimate_memory(recipe, teacher, shapes, 1, int(card.gib * GIB))
    asked, last = found[0], found[-1]
    steps, experts = distill.steps, expert_count(recipe.taught_by[0])
    seconds = card.seconds(asked.estimate.step_flops * steps * experts, distill.mixed_precision == "bf16")
    changes = [f"distill.{key}={str(value).lower()}" for key, value in last.changes.items()]
    way = f"--set {' --set '.join(changes)}" if last.fits else _on_more_cards(last.estimate, distill.batch_size, card)
    # A checkpoint is all that lies between steps but the teacher; the student is written beside it.
    disk = asked.estimate.held_bytes - _weight_bytes(teacher.denoiser, getattr(torch, context.suite.profile.dtype))
    return Stage(job.name, asked.peak_bytes, disk * experts, seconds, asked.fits, "" if asked.fits else way)


def _on_more_cards(estimate: Estimate, batch_size: int, card: Card) -> str:
    """On how many cards a step fits whose student is cut into shards: the teacher stays whole on each."""
    for cards in (count for count in range(2, batch_size + 1) if batch_size % count == 0):
        if estimate.peak_in_shards(cards) <= USABLE * card.gib * GIB:
            return f"{cards} such cards: accelerate launch --use_fsdp --fsdp_version 2 --num_processes {cards}"
    return "fewer frames, or smaller ones: a clip's own tensors are too large"


def _sampled(context: SuiteContext, job: Job, model: Model, teacher: VideoModel, encoders: int, card: Card) -> Stage:
    size, half = _clip_size(context, model), context.suite.profile.dtype != "float32"
    dtype = getattr(torch, context.suite.profile.dtype)
    denoiser = apply_plan(teacher.denoiser, context.prunings[model.row].plan_of(teacher))
    whole = replace(teacher, denoiser=denoiser)
    family = family_named(whole.family)
    settings = context.sample_settings(model.row)
    together, flops = family.passes_at_once(denoiser, settings), clip_flops(whole, size, settings)
    if "vae_tiling" in model.spec.accelerate:
        whole = replace(whole, vae=_in_tiles(whole.vae))
    drawing = _pass_bytes(whole, replace(latent_size(whole, size), batch=together), dtype)
    decoding, encoding = _decode_bytes(whole, size, dtype), encoders * dtype.itemsize
    # Of networks that lie on the card by turns, or all of them.
    apart = max(drawing, decoding, encoding)
    all_at_once = max(drawing + _weight_bytes(whole.vae, dtype), decoding + _weight_bytes(denoiser, dtype)) + encoding
    peak, usable = all_at_once if context.suite.profile.cpu_offload is None else apart, USABLE * card.gib * GIB
    fits, way = peak <= usable, "fewer frames, or a larger card"
    if apart <= usable:
        way = "memory: {cpu_offload: model}"
    elif decoding > drawing:
        way = "memory: {vae_tiling: true}, or fewer frames"
    seconds = card.seconds(flops * context.clips_per_model, half)
    disk = int(context.clips_per_model * size.frames * size.height * size.width * BYTES_PER_PIXEL[context.suffix])
    return Stage(job.name, peak, disk, seconds, fits, "" if fits else way)


def clip_flops(model: VideoModel, size: ClipSize, settings: SampleSettings) -> int:
    """The FLOPs of sampling one clip: every pass of the denoiser, and the decoding where there is a VAE."""
    family = family_named(model.family)
    one_pass = count_flops(model.denoiser, family.example_inputs(model.denoiser, latent_size(model, size)))
    passes = size.steps * family.passes_per_step(model.denoiser, settings)
    return passes * one_pass + (decode_flops(model, size) if model.vae is not None else 0)


def _pass_bytes(model: VideoModel, latents: ModelInput, dtype: torch.dtype) -> int:
    """Bytes at the worst moment of a denoiser pass, its weights too."""
    inputs = family_named(model.family).example_inputs(model.denoiser, latents)
    return _peak(model.denoiser, inputs, dtype)


def _decode_bytes(model: VideoModel, size: ClipSize, dtype: torch.dtype) -> int:
    if model.vae is None:
        return 0
    return _peak(Decoding(model.vae, size.frames), {"latents": decode_latents(model, size)}, dtype)


def _in_tiles(vae: Any) -> Any:
    """A copy of a VAE that works on tiles."""
    vae = copy.deepcopy(vae)
    vae.enable_tiling()
    return vae


def _peak(network: nn.Module, inputs: Mapping[str, Any], dtype: torch.dtype) -> int:
    copied: Any = nn.Module.to(copy.deepcopy(network), dtype=dtype)
    with FakeTensorMode(allow_non_fake_inputs=True), PeakMemory() as memory, AssumedValues(), torch.no_grad():
        values = {
            name: torch.zeros(value.shape, dtype=dtype) if is_shape(value) else value for name, value in inputs.items()
        }
        copied.to_empty(device="cpu")(**values)
    return memory.peak


def _weight_bytes(network: nn.Module | None, dtype: torch.dtype) -> int:
    return 0 if network is None else sum(weight.numel() for weight in network.parameters()) * dtype.itemsize


def stage_lines(stages: Sequence[Stage]) -> tuple[list[str], list[list[str]]]:
    """The header and a line a stage."""
    lines = [
        [
            stage.job, f"{stage.peak_bytes / GIB:.1f}", f"{stage.seconds / 3600:.3g}",
            f"{stage.disk_bytes / GIB:.3g}", stage.advice or "fits",
        ]
        for stage in stages
    ]  # fmt: skip
    return ["job", "GiB at its worst moment", "predicted hours", "GiB on disk", "on this card"], lines
