"""A study of depth: which teachers, how many clips, how they are sampled."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, field_validator, model_validator

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

    A published model has one seed: `parts` are then as many sets of clips, in the place of teachers. `things` and
    `actions` make captions of a model that knows more than the drawn world, such as "a dog" and "is running". `removed`
    is how many blocks leave by the plans that protect what was measured. With `deciding_only` nothing but the test that
    decides the claims is made, removal in all steps; the same study without it goes on from there.
    """

    stand_in: str | None = None
    teachers: Annotated[list[str], Field(min_length=1)]
    parts: Positive = 1
    things: Annotated[list[str], Field(min_length=2)] | None = None
    actions: Annotated[list[str], Field(min_length=2)] | None = None
    clips: Positive
    pairs: Positive
    removed: Positive
    deciding_only: bool = False
    sample: DepthSample

    @field_validator("teachers")
    @classmethod
    def _teachers_must_differ(cls, teachers: list[str]) -> list[str]:
        if len({*teachers}) < len(teachers):
            raise ValueError("one of them is there twice: an interval over teachers needs several")
        return teachers

    @model_validator(mode="after")
    def _must_be_whole(self) -> Self:
        if len(self.teachers) * self.parts < 2:
            raise ValueError("one teacher and one part: an interval needs several, such as parts: 3")
        if (self.things is None) != (self.actions is None):
            raise ValueError("things and actions make captions together: give both, or neither for the drawn world's")
        return self


class DepthStudy(DepthProfile):
    """A study with one profile chosen."""

    name: str
    profile: str

    def named_world(self) -> dict[str, object]:
        """What a folder of results has to have in common beside the drawn world's numbers."""
        return {"things": self.things, "actions": self.actions, "parts": self.parts} if self.things else {}

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
