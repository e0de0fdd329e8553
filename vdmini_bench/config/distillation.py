"""A distillation's own configuration: any family, one's own clips or none, and no evaluation, read from YAML."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from vdmini_bench.config.fields import Positive, Rate, Specification
from vdmini_bench.config.models import Channels, DistillSpec
from vdmini_bench.config.sampling import SamplerSpec
from vdmini_bench.config.suite import Suite
from vdmini_bench.config.vbench import VBenchSuite, load_any_suite
from vdmini_bench.config.yaml_file import Document
from vdmini_bench.data.remote_files import is_remote
from vdmini_bench.errors import SuiteError

SHAPE = "a suite or a distillation's configuration, which is a mapping,"


class ClipSpec(Specification):
    """What every training clip is cut to; motion bucket and noise strength are Stable Video Diffusion's."""

    frames: Positive
    frames_per_second: Rate
    height: Positive
    width: Positive
    motion_bucket: int = 127
    noise_strength: Annotated[float, Field(ge=0)] = 0.02


class FolderData(Specification):
    """A folder of videos and the file that says what each shows, the folder's only captions file when None."""

    kind: Literal["folder"]
    path: str
    captions: str | None = None
    skip_unreadable: bool = False
    clips_per_shard: Positive = 64


class WebDatasetData(Specification):
    """Tar shards: a path, a glob or a range such as `train-{000000..000012}.tar`, here or at `s3://` and the like."""

    kind: Literal["webdataset"]
    shards: str
    skip_unreadable: bool = False
    clips_per_shard: Positive = 64


class SamplingSpec(SamplerSpec):
    """What clips are drawn from, and how: a clip for each prompt or image and each seed."""

    prompts: str | None = None
    images: Annotated[str | None, Field(validate_default=True)] = None
    seeds: str | int = "0"

    @field_validator("images")
    @classmethod
    def _either_prompts_or_images(cls, images: str | None, info: ValidationInfo) -> str | None:
        if "prompts" in info.data and (images is None) == (info.data["prompts"] is None):
            raise ValueError("clips are drawn from prompts (a text file, one a line) or images (a folder): give one")
        return images

    @field_validator("seeds")
    @classmethod
    def _seeds_must_be_written_well(cls, seeds: str | int) -> str | int:
        from vdmini_bench.data.requests import parse_seeds

        try:
            parse_seeds(str(seeds))
        except SuiteError as error:
            raise ValueError(str(error)) from error
        return seeds


class GeneratedData(SamplingSpec):
    """No data: the teacher draws the clips."""

    kind: Literal["generated"]
    batch_size: Positive = 1
    skip_unreadable: bool = False
    clips_per_shard: Positive = 64


class PreviewSpec(SamplingSpec):
    """Clips to look at while training, drawn with the student's average every `distill.preview_every` steps."""


class DistillConfig(Specification):
    """A distillation, complete; paths in it are absolute or relative to the working directory.

    `dtype` None is that of the teacher's files, as `choose_dtype` says it.
    """

    kind: Literal["distillation"]
    name: str
    version: Positive = 1
    teacher: str
    plan: str = "vdmini"
    dtype: Literal["float32", "bfloat16", "float16"] | None = None
    clip: ClipSpec
    data: Annotated[FolderData | WebDatasetData | GeneratedData, Field(discriminator="kind")]
    distill: DistillSpec
    # After `distill`, which they are checked against.
    channels: Channels = None
    preview: Annotated[PreviewSpec | None, Field(validate_default=True)] = None

    @field_validator("preview")
    @classmethod
    def _previews_need_both(cls, preview: PreviewSpec | None, info: ValidationInfo) -> PreviewSpec | None:
        distill = info.data.get("distill")
        if distill is not None and (preview is None) != (distill.preview_every == 0):
            raise ValueError(
                "previews need both: distill.preview_every, the steps between them, and a section preview that says"
                " what to draw; give both or none"
            )
        return preview


def load_distillation(
    path: Path, profile: str | None = None, overrides: tuple[str, ...] = ()
) -> Suite | VBenchSuite | DistillConfig:
    """Read a suite with its profile chosen, or a distillation's configuration, and apply `key.path=value` overrides.

    A configuration's paths, those in `overrides` too, are relative to its file and come back resolved.

    Raises:
        SuiteError: with file:line:column, what is wrong and the nearest valid key.
    """
    document = Document.read(path, SHAPE)
    if "profiles" in document.data:
        return load_any_suite(path, profile, overrides)
    if "kind" not in document.data:
        raise SuiteError(
            f"{path}:1:1: neither a suite, which has `profiles`, nor a distillation's configuration, which has"
            " `kind: distillation`: add one of them"
        )
    if profile is not None:
        raise SuiteError(f"--profile {profile}: {path} is a distillation's configuration, which has none: leave it out")
    data = dict(document.data)
    for override in overrides:
        document.override(data, override)
    return _resolved(document.validate(DistillConfig, data, ()), path.parent)


def _resolved(configuration: DistillConfig, folder: Path) -> DistillConfig:
    """The configuration with its paths taken from `folder`; a name of a model that is no folder there stays a name."""
    from vdmini.models.registry import EMBEDDED

    changes: dict[str, Any] = {"data": _with_paths(configuration.data, folder)}
    if configuration.teacher not in EMBEDDED and _exists(folder / configuration.teacher):
        changes["teacher"] = str(folder / configuration.teacher)
    if configuration.plan.endswith(".json"):
        changes["plan"] = str(folder / configuration.plan)
    if configuration.preview is not None:
        changes["preview"] = _with_paths(configuration.preview, folder)
    return configuration.model_copy(update=changes)


def _with_paths(section: Specification, folder: Path) -> Specification:
    values = section.model_dump()
    names = [name for name in ("path", "captions", "shards", "prompts", "images") if values.get(name) is not None]
    here = [name for name in names if not is_remote(values[name])]
    return section.model_copy(update={name: str(folder / values[name]) for name in here})


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):
        # A name that no file can have.
        return False
