"""A suite: what to prune, distil, sample, score and time, read from YAML; every error says where it is."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PlainValidator,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from vdmini_bench.errors import SuiteError
from vdmini_bench.protocols import FeatureNetwork, Offset, Preprocessing, check_network, fill_from_preset
from vdmini_bench.store import key_of
from vdmini_bench.yaml_document import Document, nearest_key

Positive = Annotated[int, Field(gt=0)]
HIGHEST_RATE = 1000
RATE_TEXT = r"^[0-9]{1,9}(/[0-9]{1,9}|\.[0-9]{1,18})?$"


def _rate(given: object) -> int | float:
    """A rate as written, a whole one as such."""
    try:
        if isinstance(given, bool) or not isinstance(given, int | float | str):
            raise ValueError
        if isinstance(given, str) and not re.fullmatch(RATE_TEXT, given):
            raise ValueError
        rate = Fraction(given)
        if not Fraction(1, HIGHEST_RATE) <= rate <= HIGHEST_RATE:
            raise ValueError
    except (ValueError, ArithmeticError) as error:
        raise PydanticCustomError(
            "rate",
            "frames a second are a whole number, a decimal such as 23.976 or a fraction such as 30000/1001, from 0.001"
            " to {highest}",
            {"highest": HIGHEST_RATE},
        ) from error
    return rate.numerator if rate.denominator == 1 else float(rate)


Rate = Annotated[
    float,
    PlainValidator(_rate),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "number", "minimum": 1 / HIGHEST_RATE, "maximum": HIGHEST_RATE},
                {"type": "string", "pattern": RATE_TEXT},
            ],
            "description": "A whole number, a decimal or a fraction such as 30000/1001.",
        }
    ),
]
AnyProfile = TypeVar("AnyProfile", bound=BaseModel)
# What changes memory, speed or what is written meanwhile, and no result but by rounding.
WITHOUT_EFFECT = {"micro_batch_size", "gradient_checkpointing", "checkpoint_every", "preview_every"}


class Specification(BaseModel):
    """A section of a file: every key is known, every value of exactly its type."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class DatasetSpec(Specification):
    """Where clips come from: `drawn` (the embedded stand-in, written to disk) or `ucf101` (the real one)."""

    kind: Literal["drawn", "ucf101"]
    split: Literal["01", "02", "03"] = "01"
    train_clips: Positive
    drawn_train_per_group: Positive = 4
    drawn_test_per_group: Positive = 12


class ProtocolSpec(Specification):
    """What a clip is and how it reaches the network of FVD; two scores compare only under the same name and version.

    `preset` is one of `vdmini_bench.protocols`, which then fills the fields. Without `resample` frames are consecutive,
    whatever the rate of the file.
    """

    preset: str | None = None
    name: str
    version: Positive = 1
    frames: Annotated[int, Field(ge=9)]
    frames_per_second: Rate
    resize_width: Positive | None = None
    resize_height: Positive | None = None
    resample: bool = True
    preprocessing: Preprocessing = "resize"
    network: FeatureNetwork = "i3d-kinetics400"
    network_resize: Literal["antialiased", "plain"] = "antialiased"
    reference_offset: Offset = "start"
    generated_offset: Offset = "start"
    offset_seed: int = 0
    covariance: Literal["n-1", "n"] = "n-1"
    short_videos: Literal["refuse", "leave-out"] = "refuse"
    sampling: Literal["balanced", "first"] = "balanced"
    condition_split: Literal["train", "test", "all"] = "test"
    reference_split: Literal["train", "test", "all"] = "train"
    clips_per_block: Annotated[int, Field(ge=2)]
    blocks: Positive
    reference: Literal["shipped", "computed"]
    reference_clips: Annotated[int, Field(ge=2)]
    inception: Literal["i3d-kinetics400", "c3d-ucf101"]
    frame_fid: bool = False

    @model_validator(mode="before")
    @classmethod
    def _fill_from_preset(cls, data: Any) -> Any:
        return fill_from_preset(data)

    @model_validator(mode="after")
    def _must_suit_the_network(self) -> ProtocolSpec:
        check_network(self.network, self.reference, self.inception, self.frames)
        return self

    @property
    def clips(self) -> int:
        """How many clips a row is scored on."""
        return self.clips_per_block * self.blocks

    @property
    def rate(self) -> float | None:
        """The rate a file's frames are resampled to; None: they are taken as they are."""
        return self.frames_per_second if self.resample else None

    @property
    def ddof(self) -> int:
        """What the covariance is divided by, as N - ddof."""
        return 1 if self.covariance == "n-1" else 0

    def identity(self, reference: str) -> str:
        """What two scores must share to be compared: the protocol, its counts and splits, and what they were scored on.

        `reference` names the real side, such as `ref2048`.
        """
        base = f"{self.name}@{self.version}/n{self.clips_per_block}x{self.blocks}/{reference}"
        splits = (self.sampling, self.condition_split, self.reference_split)
        usual = self.preset is None and splits == ("balanced", "test", "train")
        frames = f"/t{self.frames}" if self.preset is not None else ""
        return base if usual else f"{base}{frames}/{'-'.join(splits)}"


class SampleSpec(Specification):
    """How the pipeline samples; the names are those of `vdmini.sample.SampleSettings`."""

    steps: Positive
    height: Positive
    width: Positive
    motion_bucket: int = 127
    noise_strength: Annotated[float, Field(ge=0)] = 0.02
    min_guidance: float = 1.0
    max_guidance: float = 3.0
    batch_size: Positive


class SeededSampleSpec(SampleSpec):
    """The same where `seed` may choose other noise for every clip, so that a rerun shows how much that moves scores."""

    seed: Annotated[int, Field(ge=0, le=1_000_000)] = 0


class DistillSpec(Specification):
    """The ICMD retraining; the names are those of `vdmini.distill.DistillSettings`.

    `task` is one of `vdmini.tasks`, the family's own when None, and `task_options` are that task's.
    """

    task: str | None = None
    task_options: dict[str, float | str | None] = {}
    steps: Positive
    batch_size: Positive
    micro_batch_size: Positive | None = None
    learning_rate: Annotated[float, Field(gt=0)]
    head_learning_rate: Annotated[float, Field(gt=0)] = 1e-4
    weight_decay: Annotated[float, Field(ge=0)] = 1e-2
    optimizer: Literal["adamw", "adamw8bit"] = "adamw"
    lambda_icd: Annotated[float, Field(ge=0)] = 0.1
    lambda_mca: Annotated[float, Field(ge=0)] = 1.0
    lambda_output: Annotated[float, Field(ge=0)] = 0.0
    lambda_r1: Annotated[float, Field(ge=0)] = 0.0
    real: Literal["teacher", "data"] = "teacher"
    balance: Literal["fixed", "adaptive"] = "fixed"
    discriminator_warmup: Annotated[int, Field(ge=0)] = 0
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.95
    gradient_clip: Annotated[float, Field(gt=0)] = 1.0
    gradient_checkpointing: bool = False
    mixed_precision: Literal["no", "bf16"] = "no"
    checkpoint_every: Positive = 100
    preview_every: Annotated[int, Field(ge=0)] = 0
    seed: int = 0

    @field_validator("task")
    @classmethod
    def _task_must_be_known(cls, task: str | None) -> str | None:
        from vdmini.tasks import make_task

        try:
            if task is not None:
                make_task(task, {})
        except ValueError as error:
            raise PydanticCustomError("task", "{reason}", {"reason": str(error)}) from error
        return task

    @field_validator("task_options")
    @classmethod
    def _options_must_be_the_tasks(
        cls, options: dict[str, float | str | None], info: ValidationInfo
    ) -> dict[str, float | str | None]:
        if info.data.get("task") is None:
            if options:
                raise PydanticCustomError("task_options", "name the task that these options are of: set distill.task")
            return options
        from vdmini.tasks import make_task

        try:
            make_task(info.data["task"], options)
        except ValueError as error:
            raise PydanticCustomError("task_options", "{reason}", {"reason": str(error)}) from error
        return options


class DistillSpecOfSuite(DistillSpec):
    """The same without previews: a suite says nothing of what to draw."""

    @field_validator("preview_every")
    @classmethod
    def _no_previews(cls, preview_every: int) -> int:
        if preview_every:
            raise PydanticCustomError(
                "previews",
                "previews are for a distillation's own configuration, which says what to draw: leave this out",
            )
        return preview_every


class TimingSpec(Specification):
    """How often each timed scope runs."""

    runs: Annotated[int, Field(ge=3)]
    warmup: Annotated[int, Field(ge=1)] = 2


class CommonProfile(Specification):
    """What a profile says of models and clips, whatever they are scored on."""

    stand_in: str | None = None
    teacher: str
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    plan: str = "vdmini"
    sample: SampleSpec
    distill: DistillSpecOfSuite
    timing: TimingSpec
    # After `distill`, which it is checked against.
    channels: str | None = None

    @field_validator("channels")
    @classmethod
    def _features_must_have_one_shape(cls, channels: str | None, info: ValidationInfo) -> str | None:
        return check_channels(channels, info.data.get("distill"))

    @property
    def frames(self) -> int:
        """How many frames a clip has."""
        raise NotImplementedError

    @property
    def frames_per_second(self) -> float:
        """At what rate."""
        raise NotImplementedError

    @property
    def rate(self) -> float | None:
        """The rate that real clips are shown and scored at; None: their frames are taken one by one."""
        return self.frames_per_second

    @property
    def train_clips(self) -> int:
        """How many clips the student is distilled on."""
        raise NotImplementedError


class Profile(CommonProfile):
    """One setting of a suite that is scored on distributions, complete."""

    sample: SeededSampleSpec
    dataset: DatasetSpec
    protocol: ProtocolSpec

    @property
    def frames(self) -> int:
        """How many frames a clip has."""
        return self.protocol.frames

    @property
    def frames_per_second(self) -> float:
        """At what rate."""
        return self.protocol.frames_per_second

    @property
    def rate(self) -> float | None:
        """The protocol's."""
        return self.protocol.rate

    @property
    def train_clips(self) -> int:
        """How many clips the student is distilled on."""
        return self.dataset.train_clips


def check_channels(channels: str | None, distill: DistillSpec | None) -> str | None:
    """The channel rule, unless the distillation cannot follow it: then PydanticCustomError."""
    if channels is not None and distill is not None and distill.lambda_icd > 0:
        raise PydanticCustomError(
            "channels",
            "the ICD loss compares features of teacher and student, which have other widths without these"
            " channels: set distill.lambda_icd: 0, or leave channels out",
        )
    return channels


class CommonSuite(Specification):
    """A suite of any kind with one profile chosen."""

    name: str
    version: Positive
    profile_name: str
    profile: CommonProfile

    @property
    def sha(self) -> str:
        """The identity of the resolved suite: what was asked for, not how the file was written."""
        return key_of(self.model_dump())


class Suite(CommonSuite):
    """A suite that is scored on distributions."""

    profile: Profile


class _Header(Specification):
    name: str
    version: Positive
    kind: Literal["distributions", "vbench"] = "distributions"
    default_profile: str
    profiles: dict[str, dict[str, Any]]


@dataclass(frozen=True)
class SuiteFile:
    """A suite's file with a profile chosen, whose `data` is not checked yet."""

    document: Document
    kind: str
    name: str
    version: int
    profile_name: str
    data: dict[str, Any]

    @classmethod
    def read(cls, path: Path, profile: str | None = None, overrides: tuple[str, ...] = ()) -> SuiteFile:
        """Read a file, choose its profile (the default one when None) and apply `key.path=value` overrides.

        Raises:
            SuiteError: with file:line:column, what is wrong and the nearest valid key.
        """
        document = Document.read(path, "a suite, which is a mapping with name, version, default_profile and profiles,")
        header = document.validate(_Header, document.data, ())
        name = profile or header.default_profile
        if name not in header.profiles:
            raise SuiteError(f"{path}: no profile {name!r}; {nearest_key(name, header.profiles)}")
        data = document.resolve_profile(name)
        for override in overrides:
            document.override(data, override, ("profiles", name))
        return cls(document, header.kind, header.name, header.version, name, data)

    def validate(self, specification: type[AnyProfile]) -> AnyProfile:
        """The profile as what it must be; raises SuiteError with its place in the file."""
        return self.document.validate(specification, self.data, ("profiles", self.profile_name))

    def suite(self) -> Suite:
        """The suite that is scored on distributions.

        Raises:
            SuiteError: with file:line:column, what is wrong and the nearest valid key; or the suite is of another kind.
        """
        if self.kind != "distributions":
            where = self.document.where(("kind",))
            raise SuiteError(
                f"{where}: a suite of kind {self.kind!r}, which `vdmini-bench run` takes, where one is wanted that is"
                " scored on distributions, such as suites/ucf101.yaml; videos made elsewhere: `vdmini-bench vbench"
                " score`"
            )
        chosen = self.validate(Profile)
        return Suite(name=self.name, version=self.version, profile_name=self.profile_name, profile=chosen)


def load_suite(path: Path, profile: str | None = None, overrides: tuple[str, ...] = ()) -> Suite:
    """Read a suite that is scored on distributions.

    Raises:
        SuiteError: as `SuiteFile.read` and `SuiteFile.suite` do.
    """
    return SuiteFile.read(path, profile, overrides).suite()
