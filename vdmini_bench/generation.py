"""Steps of a run that can be used alone: prune a model into a folder, and sample clips from one."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from torch import nn

from vdmini.channels import ChannelRule, RatioError, parse_channel_rule, prune_channels
from vdmini.checkpoint import checkpoint_sha256, save_student
from vdmini.models import ModelLoadError, VideoModel, is_published, load_model, replace_denoiser
from vdmini.models.hub import source_folder
from vdmini.plan import PlanError, PruningPlan
from vdmini.prune import apply_plan, prune_pipeline
from vdmini.sample import ClipRequest, SampleSettings, batches, sample_clips
from vdmini_bench.datasets.video import write_whole
from vdmini_bench.devices import choose_device, choose_dtype, dtype_name
from vdmini_bench.errors import BenchError, SuiteError
from vdmini_bench.fingerprint import package_versions
from vdmini_bench.progress import progress
from vdmini_bench.store import write_atomically

SAMPLES_RECORD = "samples.json"


def load_for_use(source: str, dtype: str | None = None, device: str | None = None) -> VideoModel:
    """Load a model to sample from, all of it in one number format; `choose_device` and `choose_dtype` say what None is.

    Raises:
        SuiteError: it cannot be loaded.
        NoDeviceError: torch has no such device here.
    """
    chosen = choose_device(device)
    try:
        return load_model(source, device=chosen, dtype=choose_dtype(dtype, source, chosen))
    except ModelLoadError as error:
        raise SuiteError(str(error)) from error


def load_to_keep(source: str, dtype: str | None = None, device: str | None = None) -> VideoModel:
    """Load a model to write its weights again, each network's in the number format of its files where `dtype` is None.

    Raises:
        SuiteError: it cannot be loaded.
        NoDeviceError: torch has no such device here.
    """
    import torch

    try:
        return load_model(
            source, device=choose_device(device), dtype="auto" if dtype is None else getattr(torch, dtype)
        )
    except ModelLoadError as error:
        raise SuiteError(str(error)) from error


def fetch_model(source: str, *, weights: bool = True) -> None:
    """Fetch a hub model into the local cache, or its configurations alone; what is here already needs no network.

    Raises:
        SuiteError: it cannot be fetched.
    """
    if is_published(source) or Path(source).exists():
        return
    try:
        source_folder(source, download=True, weights=weights)
    except ModelLoadError as error:
        raise SuiteError(str(error)) from error


def source_sha256(source: str) -> str:
    """The identity of a checkpoint that is here, in a folder or the hub cache; any other name stands for itself."""
    try:
        return checkpoint_sha256(source_folder(source))
    except (ModelLoadError, FileNotFoundError):
        return source


def read_channel_rule(text: str, family: str) -> ChannelRule:
    """The channel rule that a text names, for a model of a family.

    Raises:
        SuiteError: the rule is unknown or needs data, the family is another than SVD's, or Torch-Pruning is missing.
    """
    try:
        rule = parse_channel_rule(text)
    except PlanError as error:
        raise SuiteError(f"channels: {error}") from error
    if family != "svd":
        raise SuiteError(
            f"channels: {text}: channel pruning knows family 'svd', this model is of family {family!r}: prune its"
            " blocks alone, without channels"
        )
    if rule.importance == "depgraph-taylor":
        raise SuiteError(
            f"channels: {text}: 'depgraph-taylor' ranks channels by a loss on data, which cannot be given here: call"
            " vdmini.channels.prune_channels(..., loss=...), or use depgraph-l2 or magnitude"
        )
    if importlib.util.find_spec("torch_pruning") is None:
        raise SuiteError(f"channels: {text}: Torch-Pruning is not installed: pip install 'vdmini[channels]'")
    return rule


def prune_denoiser(denoiser: nn.Module, plan: PruningPlan, channels: ChannelRule | None) -> nn.Module:
    """The student that a plan leaves of a denoiser, then narrowed by a channel rule where there is one.

    Raises:
        SuiteError: the plan does not fit the denoiser, or the channels cannot go in that share.
    """
    try:
        return _narrowed(apply_plan(denoiser, plan), channels)
    except (PlanError, RatioError) as error:
        raise SuiteError(str(error)) from error


def prune_into(model: VideoModel, plan: PruningPlan, folder: Path, channels: ChannelRule | None = None) -> nn.Module:
    """Write the pruned model, the whole pipeline where there is one, with its plan and where it came from.

    Returns the student's denoiser.

    Raises:
        SuiteError: the folder exists, the plan does not fit the model, or the channels cannot go in that share.
    """
    provenance = {
        "teacher": model.source,
        "teacher_sha256": source_sha256(model.source),
        "channels": None if channels is None else str(channels),
        "versions": package_versions(),
    }
    try:
        if model.pipeline is None:
            whole = student = prune_denoiser(model.denoiser, plan, channels)
        else:
            whole = model.pipeline
            student = _narrowed(prune_pipeline(whole, plan), channels)
            replace_denoiser(whole, student)
        save_student(folder, whole, plan, provenance)
    except (PlanError, RatioError, FileExistsError) as error:
        raise SuiteError(str(error)) from error
    return student


def _narrowed(student: nn.Module, channels: ChannelRule | None) -> nn.Module:
    if channels is None:
        return student
    # Channels are ranked in float32, whatever the weights are kept in: rounding would choose among them.
    dtype = next(student.parameters()).dtype
    narrowed = prune_channels(
        student.float(),
        importance=channels.importance,
        ratio=channels.ratio,
        pair_gates=channels.pair_gates,
        tolerance=channels.tolerance,
    )
    return nn.Module.to(narrowed, dtype=dtype)


def sample_into(
    model: VideoModel,
    requests: Sequence[ClipRequest],
    settings: SampleSettings,
    folder: Path,
    batch_size: int,
    suffix: str = ".mp4",
) -> None:
    """Write a video for each request that has none yet, and `samples.json`, which says what they came from.

    A `suffix` of ".mkv" keeps the clips without loss.

    Raises:
        SuiteError: the folder holds samples of another model or other settings.
        BenchError: the source holds no pipeline, or the pipeline cannot use the requests.
    """
    if model.pipeline is None:
        raise BenchError(f"{model.source} holds a denoiser alone: give a pipeline folder")
    _write_record(folder, model, settings, batch_size, requests)
    groups = list(batches(requests, batch_size))
    with progress("sample", len(groups)) as advance:
        for group in groups:
            paths = [folder / f"{request.name}{suffix}" for request in group]
            # The whole batch again where a clip of it is missing: rounding differs between batches.
            if not all(path.exists() for path in paths):
                try:
                    clips = sample_clips(model.pipeline, group, settings)
                except ValueError as error:
                    raise BenchError(f"{model.source} cannot sample {group[0].name}: {error}") from error
                for path, clip in zip(paths, clips, strict=True):
                    write_whole(path, clip, settings.frames_per_second)
            advance()


def _write_record(
    folder: Path, model: VideoModel, settings: SampleSettings, batch_size: int, requests: Sequence[ClipRequest]
) -> None:
    identity = {
        "model": model.source,
        "checkpoint_sha256": source_sha256(model.source),
        "dtype": dtype_name(model.denoiser),
        "settings": asdict(settings),
        "batch_size": batch_size,
        "versions": package_versions(),
    }
    record = folder / SAMPLES_RECORD
    if record.exists():
        before = json.loads(record.read_text(encoding="utf-8"))
        changed = sorted(name for name in identity if before.get(name) != identity[name])
        if changed:
            raise SuiteError(f"{folder} holds samples with another {', '.join(changed)}: give another folder with -o")
    clips = [{"name": each.name, "seed": each.seed, "prompt": each.prompt} for each in requests]
    write_atomically(record, json.dumps({**identity, "clips": clips}, indent=1) + "\n")
