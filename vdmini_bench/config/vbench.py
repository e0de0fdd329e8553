"""A suite that is scored dimension by dimension, as VBench has them: what its profiles say, read from YAML."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from vdmini_bench.config.fields import Positive, Specification
from vdmini_bench.config.models import ModelSpec, SampleSpec
from vdmini_bench.config.sampling import with_preset
from vdmini_bench.config.suite import CommonProfile, CommonSuite, DatasetSpec, LengthSpec, Suite, SuiteFile
from vdmini_bench.config.vbench_dimensions import FILTERED, I2V, T2V, choose_dimensions
from vdmini_bench.data.prompts import PROMPT_FILES
from vdmini_bench.data.synthetic import FRAMES, LENGTHS, SIZE
from vdmini_bench.errors import SuiteError

PROTOCOL_VERSION = 1


class DrawnCaptionsSpec(Specification):
    """Drawn clips with the sentences that describe them, written to disk; `upright` ones turn by their motion alone."""

    kind: Literal["drawn-captions"]
    train_clips: Positive
    upright: bool = Field(default=False, exclude_if=lambda upright: not upright)


class CaptionedFolderSpec(Specification):
    """A folder of videos and the file that says what each shows; the first `train_clips` of that list are read."""

    kind: Literal["folder"]
    path: str
    captions: str | None = None
    train_clips: Positive


class VBenchSpec(Specification):
    """What videos are asked for, and which dimensions they are scored in: all of the mode where none is named.

    `embedded` prompts are those of the drawn world: `prompt_count` of them, each sampled `samples_per_prompt` times;
    for `i2v` each has a first frame. Any other name is a file of prompts (`data.prompts`), for `t2v`: all of them or
    the first `prompt_count`, each sampled once or `samples_per_prompt` times. `official` ones come with their own
    counts, and with `static_filter` and `ratio`, which they alone read; `only` is a file of those of them to ask for,
    and `samples_per_prompt` asks for other than five samples of each, unfiltered. A video's seed is a hash of its
    prompt, its number and `seed`. `code` is what scores: with `native` our own code where it has a dimension whose
    weights are here, else and otherwise the official package. `part`, such as `3/16`, asks for one of that many parts
    of all prompts in an order that is random and always the same, as `run --until decided` takes them. `floor` is the
    mean of the dimensions asked for that a model has to reach: with it there are rows for the mean, and for whether a
    model passes.
    """

    mode: Literal["t2v", "i2v"]
    prompts: str
    only: str | None = None
    prompt_count: Annotated[int | None, Field(ge=2, le=500, validate_default=True)] = None
    samples_per_prompt: Annotated[int | None, Field(ge=1, validate_default=True)] = None
    part: Annotated[str | None, Field(pattern=r"^[1-9][0-9]*/[1-9][0-9]*$")] = None
    seed: int = 0
    dimensions: list[str] = Field(default_factory=list)
    floor: Annotated[float | None, Field(gt=0, lt=1)] = None
    code: Literal["official", "native"] = "official"
    static_filter: bool = True
    ratio: Literal["1-1", "8-5", "7-4", "16-9"] = "16-9"

    @field_validator("prompts")
    @classmethod
    def _prompts_are_known_or_a_file(cls, prompts: str, info: ValidationInfo) -> str:
        if prompts in ("embedded", "official"):
            return prompts
        if Path(prompts).suffix not in PROMPT_FILES:
            raise ValueError(f"write embedded, official, or the name of a file of prompts ({', '.join(PROMPT_FILES)})")
        if info.data.get("mode") == "i2v":
            raise ValueError("a file of prompts has no images: set mode: t2v, or prompts: official")
        return prompts

    @field_validator("prompt_count", "samples_per_prompt")
    @classmethod
    def _counts_are_of_embedded_prompts(cls, count: int | None, info: ValidationInfo) -> int | None:
        prompts = info.data.get("prompts")
        if prompts == "embedded" and count is None:
            raise ValueError("embedded prompts need a number: write one")
        if prompts == "official" and count is not None and info.field_name == "prompt_count":
            raise ValueError("the official prompts have numbers of their own: leave this out")
        return count

    @field_validator("part")
    @classmethod
    def _part_is_one_of_them(cls, part: str | None) -> str | None:
        number, parts = (1, 1) if part is None else map(int, part.split("/"))
        if number > parts:
            raise ValueError(f"there are {parts} parts: write 1/{parts} to {parts}/{parts}")
        return part

    @field_validator("only")
    @classmethod
    def _only_some_official_prompts(cls, only: str | None, info: ValidationInfo) -> str | None:
        if only is not None and info.data.get("prompts") != "official":
            raise ValueError("names some of the official prompts: set vbench.prompts: official, or leave this out")
        return only

    @field_validator("dimensions")
    @classmethod
    def _dimensions_are_the_modes(cls, dimensions: list[str], info: ValidationInfo) -> list[str]:
        mode = info.data.get("mode")
        # In i2v flickering is an extra row, which the mode does not count.
        counted = [name for name in dimensions if mode != "i2v" or name != FILTERED]
        if mode is None or not counted:
            return dimensions
        try:
            choose_dimensions(mode, counted)
        except SuiteError as error:
            raise ValueError(str(error)) from error
        return dimensions

    @property
    def all_dimensions(self) -> tuple[str, ...]:
        """Every dimension that has a row: the mode's official ones, and flickering where it is none of them."""
        return T2V if self.mode == "t2v" else (FILTERED, *I2V)

    @property
    def asked_dimensions(self) -> tuple[str, ...]:
        """Those of them to be scored."""
        return tuple(name for name in self.all_dimensions if name in self.dimensions or not self.dimensions)

    @property
    def file(self) -> Path | None:
        """The file of prompts, where that is what is asked for."""
        return None if self.prompts in ("embedded", "official") else Path(self.prompts)

    @property
    def is_standard(self) -> bool:
        """Whether the videos are all those that the official protocol asks for."""
        return self.prompts == "official" and all(
            each is None for each in (self.only, self.part, self.samples_per_prompt)
        )

    def identity(self, videos: int, asked: str) -> str:
        """What scores on videos other than the standard ones must share; `asked` digests all that is asked for."""
        kind = "official" if self.file is None else "prompts"
        name = f"vbench-embedded-{self.mode}" if self.prompts == "embedded" else f"vbench-{kind}-{asked[:12]}"
        samples = self.samples_per_prompt or 1
        part = "" if self.part is None else f"/part{self.part}"
        return f"{name}@{PROTOCOL_VERSION}/p{videos // samples}x{samples}/seed{self.seed}{part}"


class VBenchSampleSpec(SampleSpec):
    """How the pipeline samples, where all videos may start from the noise in a file, `latents`."""

    latents: str | None = None


class VBenchModelSpec(ModelSpec):
    """A row's model with these."""

    sample: VBenchSampleSpec


class VBenchProfile(CommonProfile):
    """One setting of a suite that is scored in VBench's dimensions, complete."""

    sample: VBenchSampleSpec
    models: Annotated[Mapping[str, VBenchModelSpec], Field(min_length=1)]
    clip: LengthSpec
    dataset: Annotated[DatasetSpec | DrawnCaptionsSpec | CaptionedFolderSpec, Field(discriminator="kind")]
    vbench: VBenchSpec

    @model_validator(mode="before")
    @classmethod
    def _clip_of_the_preset(cls, data: Any) -> Any:
        """What `clip` leaves out, where `sample` names a preset."""
        sample, clip = (data.get(name, {}) if isinstance(data, dict) else None for name in ("sample", "clip"))
        if not isinstance(sample, dict) or not isinstance(clip, dict) or sample.get("preset") is None:
            return data
        filled = with_preset(clip | {"preset": sample["preset"]}, LengthSpec.model_fields)
        return data | {"clip": {name: value for name, value in filled.items() if name != "preset"}}

    @field_validator("vbench")
    @classmethod
    def _everything_fits(cls, vbench: VBenchSpec, info: ValidationInfo) -> VBenchSpec:
        clip, sample, dataset = (info.data.get(name) for name in ("clip", "sample", "dataset"))
        if clip is None or sample is None or dataset is None:
            return vbench
        if vbench.mode == "t2v" and isinstance(dataset, DatasetSpec):
            raise ValueError(
                "a text-to-video student learns from clips with captions: set dataset.kind to drawn-captions or folder"
            )
        if sample.latents is not None and (vbench.mode == "i2v" or vbench.samples_per_prompt != 1):
            raise ValueError(
                "from one noise, sample.latents, come clips of words alone, and all samples of a prompt are the same:"
                " set mode: t2v and samples_per_prompt: 1"
            )
        size = (clip.frames, sample.height, sample.width)
        if vbench.prompts == "embedded" and size not in [(frames, SIZE, SIZE) for frames in LENGTHS]:
            raise ValueError(
                f"embedded prompts are of the drawn world, whose clips are {FRAMES} frames of {SIZE}x{SIZE}, or one"
                " less: set clip.frames, sample.height and sample.width so"
            )
        return vbench

    @property
    def length(self) -> LengthSpec:
        """The section `clip`."""
        return self.clip

    @property
    def from_images(self) -> bool:
        """By the mode."""
        return self.vbench.mode == "i2v"

    @property
    def train_clips(self) -> int:
        """How many clips the student is distilled on."""
        return self.dataset.train_clips


class VBenchSuite(CommonSuite):
    """A suite that is scored in VBench's dimensions."""

    profile: VBenchProfile


def load_any_suite(path: Path, profile: str | None = None, overrides: tuple[str, ...] = ()) -> Suite | VBenchSuite:
    """Read a suite of either kind, choose its profile and apply `key.path=value` overrides.

    Raises:
        SuiteError: with file:line:column, what is wrong and the nearest valid key.
    """
    file = SuiteFile.read(path, profile, overrides)
    if file.kind == "distributions":
        return file.suite()
    chosen = file.validate(VBenchProfile)
    return VBenchSuite(name=file.name, version=file.version, profile_name=file.profile_name, profile=chosen)
