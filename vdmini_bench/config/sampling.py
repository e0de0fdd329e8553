"""How a pipeline is set to sample, as suites and distillations say it: setting by setting, or by a published preset."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationInfo,
    field_validator,
    model_serializer,
    model_validator,
)

from vdmini.requests import WRITTEN_WHERE_SET, SampleSettings
from vdmini_bench.config.fields import Positive, Rate, Specification
from vdmini_bench.config.yaml_file import Document, nearest_key
from vdmini_bench.errors import SuiteError

PRESETS_FILE = Path(__file__).with_name("sampling_presets.yaml")


def _complete_or_preset(schema: dict[str, Any]) -> None:
    """Have the JSON schema of a section ask for what a preset gives only where none is named."""
    given = [name for name in schema.get("required", ()) if name in SampleSettings.__dataclass_fields__]
    schema["required"] = [name for name in schema.get("required", ()) if name not in given]
    schema["anyOf"] = [{"required": ["preset"]}, {"required": given}]


class SamplerSpec(Specification):
    """Settings of `vdmini.requests.SampleSettings` by their names; None is the model's own.

    `preset` is one of `sampling_presets.yaml`, which gives what is left out here.
    """

    model_config = ConfigDict(json_schema_extra=_complete_or_preset)

    preset: str | None = None
    steps: Positive
    guidance: float | None = None
    negative_prompt: str | None = None
    second_guidance: float | None = None
    boundary: Annotated[float, Field(ge=0, le=1)] | None = None
    scheduler: str | None = None
    shift: Annotated[float, Field(gt=0)] | None = None
    # After `steps`, one for each.
    sigmas: list[Annotated[float, Field(gt=0)]] | None = None

    @model_validator(mode="before")
    @classmethod
    def _fill_from_preset(cls, data: Any) -> Any:
        return with_preset(data, cls.model_fields) if isinstance(data, dict) else data

    @field_validator("preset")
    @classmethod
    def _preset_must_be_known(cls, preset: str | None) -> str | None:
        try:
            sampled_by(preset)
        except SuiteError as error:
            raise ValueError(str(error)) from error
        return preset

    @field_validator("sigmas")
    @classmethod
    def _one_sigma_a_step(cls, sigmas: list[float] | None, info: ValidationInfo) -> list[float] | None:
        steps = info.data.get("steps", 0)
        if sigmas is not None and len(sigmas) != steps:
            raise ValueError(f"one is needed for each of {steps} steps, and here are {len(sigmas)}")
        return sigmas

    @model_serializer(mode="wrap")
    def _as_before(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without those of the later settings that are None: jobs of suites that leave them out keep their keys."""
        later = ("preset", *WRITTEN_WHERE_SET)
        return {name: value for name, value in handler(self).items() if value is not None or name not in later}


class PresetSettings(SamplerSpec):
    """All that a preset may give; what it leaves out is the pipeline's own."""

    frames: Positive
    height: Positive
    width: Positive
    frames_per_second: Rate
    motion_bucket: int = 127
    noise_strength: float = 0.02
    min_guidance: float = 1.0
    max_guidance: float = 3.0


class Source(Specification):
    """Where settings were read: files of a GitHub repository at a commit."""

    repository: str
    commit: str
    files: Annotated[list[str], Field(min_length=1)]


class SamplingPreset(Specification):
    """How a model's authors sample it; `note` is what they do that these settings cannot say, or a choice made here."""

    version: Positive
    source: Source
    settings: PresetSettings
    note: str = ""

    @property
    def sampled(self) -> SampleSettings:
        """The settings as the library takes them."""
        return sample_settings(self.settings.model_dump())


class _PresetsFile(Specification):
    # Texts that several presets share, by YAML's anchors.
    texts: dict[str, str]
    presets: dict[str, SamplingPreset]


@cache
def sampling_presets() -> Mapping[str, SamplingPreset]:
    """The presets by name; raises SuiteError where their file is wrong."""
    document = Document.read(PRESETS_FILE)
    return document.validate(_PresetsFile, document.data, ()).presets


def find_preset(name: str) -> SamplingPreset:
    """A preset by its name; raises SuiteError with the nearest one."""
    if name not in sampling_presets():
        raise SuiteError(f"no preset {name!r}; {nearest_key(name, sampling_presets())}")
    return sampling_presets()[name]


def sampled_by(preset: str | None) -> SampleSettings | None:
    """The settings of a preset, None for none; raises SuiteError with the nearest one."""
    return None if preset is None else find_preset(preset).sampled


def with_preset(section: Mapping[str, Any], fields: Collection[str]) -> dict[str, Any]:
    """A section as written, with those of the fields that it leaves out and the preset it names has."""
    name = section.get("preset")
    if not isinstance(name, str) or name not in sampling_presets():
        return {**section}
    given = sampling_presets()[name].settings.model_dump(exclude_unset=True)
    return {**{field: value for field, value in given.items() if field in fields}, **section}


def sample_settings(values: Mapping[str, Any]) -> SampleSettings:
    """Those of a section's values that the library takes."""
    taken = {name: values[name] for name in SampleSettings.__dataclass_fields__ if name in values}
    sigmas = taken.get("sigmas")
    return SampleSettings(**{**taken, "sigmas": None if sigmas is None else tuple(sigmas)})


def preset_name(preset: str, settings: SampleSettings) -> str:
    """What settings that began as a preset are called in records: with its version, and `changed` where they are."""
    found = find_preset(preset)
    return f"{preset}@{found.version}{'' if settings == found.sampled else ' changed'}"
