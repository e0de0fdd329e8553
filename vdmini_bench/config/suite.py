"""A suite: what to prune, distil, sample, score and time, read from YAML; every error says where it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, Field, ValidationInfo, field_validator

from vdmini.measures import CpuOffload
from vdmini.requests import WRITTEN_WHERE_SET, SampleSettings
from vdmini_bench.config.fields import Positive, ProfilesHeader, Rate, Specification
from vdmini_bench.config.models import (
    DistillSpecOfSuite,
    ModelSpec,
    PublishedSpec,
    SampleSpec,
    SeededSampleSpec,
    SeedsSpec,
    check_baseline,
    complete_models,
    said,
)
from vdmini_bench.config.protocol import ProtocolSpec
from vdmini_bench.config.sampling import find_preset, preset_name, sample_settings
from vdmini_bench.config.yaml_file import Document
from vdmini_bench.errors import SuiteError
from vdmini_bench.system.files import key_of

AnyProfile = TypeVar("AnyProfile", bound=BaseModel)


class DatasetSpec(Specification):
    """Where clips come from: `drawn` (the embedded stand-in, written to disk) or `ucf101` (the real one)."""

    kind: Literal["drawn", "ucf101"]
    split: Literal["01", "02", "03"] = "01"
    train_clips: Positive
    drawn_train_per_group: Positive = 4
    drawn_test_per_group: Positive = 12


class LengthSpec(Specification):
    """How long a clip is."""

    frames: Annotated[int, Field(ge=2)]
    frames_per_second: Rate


class TimingSpec(Specification):
    """How often each timed scope runs."""

    runs: Annotated[int, Field(ge=3)]
    warmup: Annotated[int, Field(ge=1)] = 2


class MemorySpec(Specification):
    """What all models sample with less memory by, more slowly: it is no way to be faster, and nothing is timed with it.

    With `cpu_offload` networks wait on the CPU for their turn, as a whole (`model`) or layer by layer (`group`, from
    diffusers' group offloading).
    """

    cpu_offload: CpuOffload | None = None
    vae_tiling: bool = False
    vae_slicing: bool = False


class CommonProfile(Specification):
    """What a profile says of models and clips, whatever they are scored on.

    `models` are the rows of the table by name, of which `baseline` is what all others are compared with. Where there
    is no `timing` nothing is timed. `published` are numbers of others, shown beside those that are measured.
    """

    stand_in: str | None = None
    teacher: str
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    sample: SampleSpec
    distill: DistillSpecOfSuite | None = None
    timing: TimingSpec | None = None
    # After `timing`.
    memory: Annotated[MemorySpec | None, Field(exclude_if=lambda memory: memory is None)] = None
    seeds: SeedsSpec = SeedsSpec()
    models: Annotated[Mapping[str, ModelSpec], Field(min_length=1)]
    # After `models`, of which it is one.
    baseline: Annotated[str, Field(validate_default=True)] = "teacher"
    published: list[PublishedSpec] = Field(default_factory=list)

    @field_validator("memory")
    @classmethod
    def _memory_is_not_timed(cls, memory: MemorySpec | None, info: ValidationInfo) -> MemorySpec | None:
        if memory is not None and info.data.get("timing") is not None:
            raise ValueError("models that save memory are not timed: leave timing out (--set timing=null), or memory")
        return memory

    @field_validator("models")
    @classmethod
    def _quantized_layers_stay_whole(cls, models: Any, info: ValidationInfo) -> Any:
        memory = info.data.get("memory")
        if memory is not None and memory.cpu_offload == "group":
            for name, model in models.items():
                if any(measure.kind == "quantize" for measure in model.acceleration):
                    raise ValueError(
                        f"{name!r} is quantized, and such layers move only together: take cpu_offload: model"
                    )
        return models

    @field_validator("baseline")
    @classmethod
    def _baseline_is_a_model(cls, baseline: str, info: ValidationInfo) -> str:
        return check_baseline(baseline, info.data.get("models", (baseline,)))

    @field_validator("published")
    @classmethod
    def _published_of_a_model(cls, published: list[PublishedSpec], info: ValidationInfo) -> list[PublishedSpec]:
        for each in published:
            check_baseline(each.model, info.data.get("models", (each.model,)))
        return published

    @property
    def measures(self) -> dict[str, list[str]]:
        """What was done to the teacher for each row, as `ModelSpec.measures` says it."""

        def of(row: str) -> list[str]:
            spec = self.models[row]
            before = [] if spec.teacher is None else of(spec.teacher)
            # What both have in common was done once.
            return [*dict.fromkeys([*before, *spec.measures(self.sample, self.distill)])]

        common = self._sampled
        return {row: [*of(row), *common] for row in self.models}

    @property
    def _sampled(self) -> list[str]:
        """What all rows are sampled by, where it is a preset or a setting that most suites leave out."""
        sampled = self.sampling(self.sample)
        named = [] if self.sample.preset is None else [str(sampled["preset"])]
        preset = {} if self.sample.preset is None else find_preset(self.sample.preset).sampled.to_json()
        names = preset.keys() | sampled.keys() - {"preset"} if named else sampled.keys() & {*WRITTEN_WHERE_SET}
        values = ((name, sampled.get(name)) for name in sorted(names))
        changed = [f"{name}={said(value)}" for name, value in values if value != preset.get(name)]
        return [f"sampled by: {', '.join([*named, *changed])}"] if named or changed else []

    def sampler(self, sample: SampleSpec) -> SampleSettings:
        """How clips are sampled, as the library takes it."""
        return sample_settings(dict(sample) | {"frames": self.frames, "frames_per_second": self.frames_per_second})

    def sampling(self, sample: SampleSpec) -> dict[str, object]:
        """The same as records have it, with the name of the preset that it is or began as."""
        settings = self.sampler(sample)
        name = None if sample.preset is None else preset_name(sample.preset, settings)
        return {"preset": name, **settings.to_json()}

    @property
    def cpu_offload(self) -> CpuOffload | None:
        """How networks wait on the CPU while others sample; None: they do not."""
        return None if self.memory is None else self.memory.cpu_offload

    @property
    def frames(self) -> int:
        """How many frames a clip has."""
        return self.length.frames

    @property
    def frames_per_second(self) -> float:
        """At what rate."""
        return self.length.frames_per_second

    @property
    def from_images(self) -> bool:
        """Whether models are given images to animate, else words."""
        raise NotImplementedError

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
        """How many clips students are trained on."""
        raise NotImplementedError


class SeededModelSpec(ModelSpec):
    """A row's model with the seeds of its profile."""

    sample: SeededSampleSpec


class Profile(CommonProfile):
    """One setting of a suite that is scored on distributions, complete."""

    sample: SeededSampleSpec
    models: Annotated[Mapping[str, SeededModelSpec], Field(min_length=1)]
    dataset: DatasetSpec
    protocol: ProtocolSpec

    @property
    def length(self) -> ProtocolSpec:
        """The protocol."""
        return self.protocol

    @property
    def from_images(self) -> bool:
        """By the protocol."""
        return self.protocol.condition == "first-frame"

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


class _Header(ProfilesHeader):
    kind: Literal["distributions", "vbench"] = "distributions"


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
        """The profile as what it must be, its models complete; raises SuiteError with its place in the file."""
        place = ("profiles", self.profile_name)
        return self.document.validate(specification, complete_models(self.document, self.data, place), place)

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
