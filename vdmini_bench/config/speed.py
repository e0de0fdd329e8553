"""A speed suite: which models to time, in order of value, and what the paper said of them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from vdmini_bench.config.fields import Positive, ProfilesHeader, Specification
from vdmini_bench.config.timing import FEWEST_RUNS, SCOPES, Attention, Dtype, Scope, SpeedRequest
from vdmini_bench.config.yaml_file import Document, nearest_key
from vdmini_bench.errors import SuiteError


class PaperSpec(Specification):
    """What the paper, or `said` else, reports of a scope; of other hardware, so only ever shown beside ours."""

    scope: str
    said: str
    speedup: float | None = None
    teacher_ms: float | None = None
    student_ms: float | None = None

    @property
    def ratio(self) -> float | None:
        """The speed-up that is reported, or follows from what is."""
        if self.speedup is not None or self.teacher_ms is None or self.student_ms is None:
            return self.speedup
        return self.teacher_ms / self.student_ms


class EntrySpec(Specification):
    """One model to time beside its students: `plans` are rules or plan files, `decoder` their VAE decoder's widths."""

    model: str
    plans: Annotated[list[str], Field(min_length=1)]
    decoder: Annotated[str, Field(pattern=r"^\d+(,\d+)*$")] | None = None
    frames: Positive
    size: Annotated[str, Field(pattern=r"^\d+x\d+$")]
    steps: Positive
    channels: Positive | None = None
    scopes: Annotated[list[Scope], Field(min_length=1, default_factory=lambda: [*SCOPES])]
    attention: Attention = "auto"
    compiled: bool = False
    optimized: bool = False
    runs: Annotated[int, Field(ge=FEWEST_RUNS)] = FEWEST_RUNS
    warmup: Positive = 2
    projected_steps: Positive | None = None
    attributed: bool = True
    paper: Annotated[list[PaperSpec], Field(default_factory=list)]

    def request(self, dtype: Dtype) -> SpeedRequest:
        """What to time."""
        height, width = map(int, self.size.split("x"))
        return SpeedRequest(
            **self.model_dump(exclude={"plans", "scopes", "size", "decoder", "paper"}),
            plans=tuple(self.plans),
            scopes=tuple(self.scopes),
            size=(height, width),
            decoder=None if self.decoder is None else tuple(map(int, self.decoder.split(","))),
            dtype=dtype,
            random_weights=True,
        )


class SpeedProfile(Specification):
    """Where to time, and what, in order of value."""

    device: Literal["cuda", "cpu"]
    dtype: Dtype
    entries: Annotated[dict[str, EntrySpec], Field(min_length=1)]


class SpeedSuite(SpeedProfile):
    """A speed suite with one profile chosen."""

    name: str
    profile: str

    def entry(self, name: str) -> EntrySpec:
        """The entry of that name; raises SuiteError where there is none."""
        if name not in self.entries:
            raise SuiteError(f"profile {self.profile} has no entry {name!r}; {nearest_key(name, self.entries)}")
        return self.entries[name]


def load_speed_suite(path: Path, profile: str | None = None) -> SpeedSuite:
    """Read a speed suite and choose its profile, the default one when None.

    Raises:
        SuiteError: with file:line:column, what is wrong and the nearest valid key.
    """
    document = Document.read(path, "a speed suite, a mapping with name, version, default_profile and profiles,")
    header = document.validate(ProfilesHeader, document.data, ())
    name = profile or header.default_profile
    data = document.resolve_profile(name)
    entries = data.get("entries")
    # Each at its own place first, which an error then names.
    for key, entry in entries.items() if isinstance(entries, dict) else ():
        place = ("profiles", name, "entries", key)
        if not re.fullmatch(r"[a-z0-9][a-z0-9.-]*", key):
            raise SuiteError(f"{document.where(place)}: name entries with small letters, digits, dots and hyphens")
        document.validate(EntrySpec, entry, place)
    chosen = document.validate(SpeedProfile, data, ("profiles", name))
    return SpeedSuite(name=header.name, profile=name, **dict(chosen))
