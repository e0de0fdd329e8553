"""A study of depth: which teachers, how many clips, how they are sampled."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field, field_validator

from vdmini.requests import SampleSettings
from vdmini_bench.config.fields import Positive, ProfilesHeader, Specification
from vdmini_bench.config.sampling import SamplerSpec, sample_settings
from vdmini_bench.config.yaml_file import Document


class DepthSample(SamplerSpec):
    """How clips are sampled; a patch needs both clips of a pair in one batch."""

    frames: Positive
    height: Positive
    width: Positive
    batch_size: Annotated[int, Field(ge=2)]


class DepthProfile(Specification):
    """Teachers that differ in their training seed alone, and how many clips and pairs of clips are read of each.

    `removed` is how many blocks leave by the plans that protect what was measured.
    """

    stand_in: str
    teachers: Annotated[list[str], Field(min_length=2)]
    clips: Positive
    pairs: Positive
    removed: Positive
    sample: DepthSample

    @field_validator("teachers")
    @classmethod
    def _teachers_must_differ(cls, teachers: list[str]) -> list[str]:
        if len({*teachers}) < len(teachers):
            raise ValueError("one of them is there twice: an interval over teachers needs several")
        return teachers


class DepthStudy(DepthProfile):
    """A study with one profile chosen."""

    name: str
    profile: str

    @property
    def settings(self) -> SampleSettings:
        """The sampling settings as the library takes them."""
        return sample_settings(self.sample.model_dump())


def load_depth_study(path: Path, profile: str | None = None) -> DepthStudy:
    """Read a study and choose its profile, the default one when None.

    Raises:
        SuiteError: with file:line:column, what is wrong and the nearest valid key.
    """
    document = Document.read(path, "a study of depth, a mapping with name, version, default_profile and profiles,")
    header = document.validate(ProfilesHeader, document.data, ())
    name = profile or header.default_profile
    chosen = document.validate(DepthProfile, document.resolve_profile(name), ("profiles", name))
    return DepthStudy(name=header.name, profile=name, **dict(chosen))
