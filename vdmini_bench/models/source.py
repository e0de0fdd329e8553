"""Find a model's folder and its identity, and load it for use."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from vdmini.checkpoint import checkpoint_sha256
from vdmini.errors import ModelLoadError
from vdmini.models.hub import source_folder
from vdmini.models.loading import load_model
from vdmini.models.registry import VideoModel
from vdmini.prune import SECOND_EXPERT
from vdmini_bench.errors import BenchError, SuiteError
from vdmini_bench.models.devices import choose_device, choose_dtype

if TYPE_CHECKING:
    from diffusers.pipelines.pipeline_utils import DiffusionPipeline


# The digest of what a job would read and is missing: no such job is done.
NOT_THERE = "not there yet"


def load_for_use(source: str, dtype: str | None = None, device: str | None = None) -> VideoModel:
    """Load a model to sample from, all of it in one number format; `choose_device` and `choose_dtype` say what None is.

    Raises:
        ModelLoadError: it cannot be loaded.
        NoDeviceError: torch has no such device here.
    """
    chosen = choose_device(device)
    return load_model(source, device=chosen, dtype=choose_dtype(dtype, source, chosen))


def source_sha256(source: str) -> str:
    """The identity of a checkpoint by its content, a hub model's too: the same id may stand for another revision.

    A name that stands for nothing on the disk, such as a published configuration's, stands for itself.
    """
    try:
        return checkpoint_sha256(source_folder(source))
    except (ModelLoadError, FileNotFoundError):
        return source


def model_folder(source: str) -> Path:
    """The local folder of a model source: an embedded name, a folder, or a hub id in the local hub cache.

    Raises:
        SuiteError: there is none.
    """
    try:
        return source_folder(source)
    except ModelLoadError as error:
        raise SuiteError(str(error)) from error


def found_teacher(source: str) -> tuple[str, str]:
    """Where a teacher loads from, and its checkpoint's identity; an empty path and NOT_THERE where it is missing."""
    try:
        folder = source_folder(source)
    except ModelLoadError:
        return "", NOT_THERE
    return str(folder), checkpoint_sha256(folder)


def pipeline_of(model: VideoModel) -> DiffusionPipeline:
    """A model's pipeline; raises BenchError where the source holds a denoiser alone."""
    if model.pipeline is None:
        raise BenchError(f"{model.source} holds no pipeline; give a folder with a model_index.json")
    return model.pipeline


def expert_count(folder: str) -> int:
    """How many denoisers the pipeline in a folder has, each of which is distilled by itself."""
    return 1 + (Path(folder) / SECOND_EXPERT).is_dir()
