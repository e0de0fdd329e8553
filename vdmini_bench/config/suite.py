"""A suite: what to prune, distil, sample, score and time, read from YAML; every error says where it is."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, Field, ValidationInfo, field_validator

from vdmini_bench.config.fields import Positive, Rate, Specification
from vdmini_bench.config.protocol import ProtocolSpec
from vdmini_bench.config.yaml_file import Document
from vdmini_bench.errors import SuiteError
from vdmini_bench.system.files import key_of

AnyProfile = TypeVar("AnyProfile", bound=BaseModel)
Options = dict[str, float | str | None]
# What changes memory, speed or what is written meanwhile, and no result but by rounding.
WITHOUT_EFFECT = {"micro_batch_size", "gradient_checkpointing", "checkpoint_every", "preview_every", "report_to"}


class DatasetSpec(Specification):
    """Where clips come from: `drawn` (the embedded stand-in, written to disk) or `ucf101` (the real one)."""

    kind: Literal["drawn", "ucf101"]
    split: Literal["01", "02", "03"] = "01"
    train_clips: Positive
    drawn_train_per_group: Positive = 4
    drawn_test_per_group: Positive = 12


class SampleSpec(Specification):
    """How the pipeline samples; the names are those of `vdmini.requests.SampleSettings`."""

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

    `task` is one of `vdmini.tasks`, the family's own when None, and `task_options` are that task's. `report_to` names
    trackers of the losses; None is TensorBoard where it is installed.
    """

    task: str | None = None
    task_options: Options = Field(default={})
    steps: Positive
    batch_size: Positive
    micro_batch_size: Positive | None = None
    learning_rate: Annotated[float, Field(gt=0)]
    lr_scheduler: Literal[
        "warm_cosine", "constant", "constant_with_warmup", "linear", "cosine", "cosine_with_restarts", "polynomial"
    ] = "warm_cosine"
    lr_warmup_steps: Annotated[int, Field(ge=0)] = 0
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
    report_to: list[Literal["tensorboard", "wandb", "trackio", "mlflow"]] | None = None
    seed: int = 0

    @field_validator("report_to")
    @classmethod
    def _trackers_must_be_installed(cls, report_to: list[str] | None) -> list[str] | None:
        for name in report_to or ():
            if find_spec(name) is None:
                raise ValueError(f"{name} is not installed: pip install {name}")
        return report_to

    @field_validator("task")
    @classmethod
    def _task_must_be_known(cls, task: str | None) -> str | None:
        _make_task(task, {})
        return task

    @field_validator("task_options")
    @classmethod
    def _options_must_be_the_tasks(cls, options: Options, info: ValidationInfo) -> Options:
        task = info.data.get("task")
        if task is None and options:
            raise ValueError("name the task that these options are of: set distill.task")
        _make_task(task, options)
        return options


def _make_task(task: str | None, options: Options) -> None:
    """Raise ValueError for a task that is unknown or has no such options; None is any family's own."""
    from vdmini.tasks import make_task

    if task is not None:
        make_task(task, options)


class DistillSpecOfSuite(DistillSpec):
    """The same without previews: a suite says nothing of what to draw."""

    @field_validator("preview_every")
    @classmethod
    def _no_previews(cls, preview_every: int) -> int:
        if preview_every:
            raise ValueError(
                "previews are for a distillation's own configuration, which says what to draw: leave this out"
            )
        return preview_every


def _features_must_have_one_shape(channels: str | None, info: ValidationInfo) -> str | None:
    distill = info.data.get("distill")
    if channels is not None and distill is not None and distill.lambda_icd > 0:
        raise ValueError(
            "the ICD loss compares features of teacher and student, which have other widths without these"
            " channels: set distill.lambda_icd: 0, or leave channels out"
        )
    return channels


# A channel rule, in a section in which it stands after `distill`.
Channels = Annotated[str | None, AfterValidator(_features_must_have_one_shape)]


class LengthSpec(Specification):
    """How long a clip is."""

    frames: Annotated[int, Field(ge=2)]
    frames_per_second: Rate


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
    channels: Channels = None

    @property
    def frames(self) -> int:
        """How many frames a clip has."""
        return self.length.frames

    @property
    def frames_per_second(self) -> float:
        """At what rate."""
        return self.length.frames_per_second

    @property
    def rate(self) -> float | None:
        """The rate that real clips are shown and scored at; None: their frames are taken one by one."""
        return self.frames_per_second

    @property
    def length(self) -> LengthSpec | ProtocolSpec:
        """The section that says how long a clip is."""
        raise NotImplementedError

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
    def length(self) -> ProtocolSpec:
        """The protocol."""
        return self.protocol

    @property
    def rate(self) -> float | None:
        """The protocol's."""
        return self.protocol.rate

    @property
    def train_clips(self) -> int:
        """How many clips the student is distilled on."""
        return self.dataset.train_clips


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
    """Read a suite that is scored on distributions; raises SuiteError as `SuiteFile.read` and `SuiteFile.suite` do."""
    return SuiteFile.read(path, profile, overrides).suite()
