"""Steps of a run that can be used alone: prune a model into a folder, and sample clips from one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vdmini.models.hub import source_folder
from vdmini.models.loading import load_model
from vdmini.models.registry import VideoModel, is_published
from vdmini.requests import ClipRequest, SampleSettings
from vdmini.sample import batches, sample_clips
from vdmini_bench.data.video import write_whole
from vdmini_bench.errors import BenchError
from vdmini_bench.models.devices import choose_device, dtype_name
from vdmini_bench.models.sample_record import SampleRecord
from vdmini_bench.models.source import source_sha256
from vdmini_bench.results.versions import STAGE_VERSIONS, deciding_versions
from vdmini_bench.system.fingerprint import package_versions
from vdmini_bench.system.progress import progress


def load_to_keep(source: str, dtype: str | None = None, device: str | None = None) -> VideoModel:
    """Load a model to write its weights again, each network's in the number format of its files where `dtype` is None.

    Raises:
        ModelLoadError: it cannot be loaded.
        NoDeviceError: torch has no such device here.
    """
    import torch

    return load_model(source, device=choose_device(device), dtype="auto" if dtype is None else getattr(torch, dtype))


def fetch_model(source: str, *, weights: bool = True) -> None:
    """Fetch a hub model into the local cache, or its configurations alone; what is here already needs no network.

    Raises:
        ModelLoadError: it cannot be fetched.
    """
    if not is_published(source) and not Path(source).exists():
        source_folder(source, download=True, weights=weights)


def sample_into(
    model: VideoModel,
    requests: Sequence[ClipRequest],
    settings: SampleSettings,
    folder: Path,
    batch_size: int,
    suffix: str = ".mp4",
    preset: str | None = None,
) -> int:
    """Write a video for each request that has none yet which was made from the same; returns how many were written.

    `samples.json` says what they came from. Where a clip's checkpoint, settings, prompt, image or seed is another than
    its file was made from, it is made again. A `suffix` of ".mkv" keeps the clips without loss. The record calls
    the settings by the name of a `preset`.

    Raises:
        BenchError: the source holds no pipeline, or the pipeline cannot use the requests.
        NotFiniteError: a clip, which is named, is not finite; no file of its batch is written.
    """
    if model.pipeline is None:
        raise BenchError(f"{model.source} holds a denoiser alone: give a pipeline folder")
    record = SampleRecord(folder, {**_origin(model, settings), "preset": preset}, requests, suffix)
    record.say_others()
    # The whole batch again where a clip of it is missing: rounding differs between batches.
    groups = [group for group in batches(requests, batch_size) if not record.holds(group)]
    with progress("sample", len(groups)) as advance:
        for group in groups:
            try:
                clips = sample_clips(model.pipeline, group, settings)
            except ValueError as error:
                raise BenchError(f"{model.source} cannot sample {group[0].name}: {error}") from error
            record.forget(group)
            for request, clip in zip(group, clips, strict=True):
                write_whole(folder / f"{request.name}{suffix}", clip, settings.frames_per_second)
            record.add(group)
            advance()
    record.write()
    return sum(map(len, groups))


def _origin(model: VideoModel, settings: SampleSettings) -> dict[str, object]:
    """All that decides a clip beside its request and its batch."""
    return {
        "model": model.source,
        "checkpoint_sha256": source_sha256(model.source),
        "dtype": dtype_name(model.denoiser),
        "device": next(model.denoiser.parameters()).device.type,
        "settings": settings.to_json(),
        "versions": {**deciding_versions(package_versions()), "sample": STAGE_VERSIONS["sample"]},
    }
