"""A speed suite: which models to time, in order of value, and what the paper said of them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator
from pydantic_core import PydanticCustomError

from vdmini_bench.errors import SuiteError
from vdmini_bench.speed_request import FEWEST_RUNS, SCOPES, Attention, Dtype, Scope, SpeedRequest
from vdmini_bench.suite import Positive, Specification
from vdmini_bench.yaml_document import Document, nearest_key


class StudentSpec(Specification):
    """A student: a rule or a plan file, and the widths of its VAE decoder where that is compressed too."""

    plan: str
    decoder: str | None = None

    @field_validator("decoder")
    @classmethod
    def _widths(cls, decoder: str | None) -> str | None:
        if decoder is not None and not re.fullmatch(r"\d+(,\d+)*", decoder):
            raise PydanticCustomError("decoder", "write the channels of each stage, such as 512,448,96,32")
        return decoder


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
    """One model to time beside its students."""

    name: Annotated[str, Field(pattern="^[a-z0-9.-]+$")]
    model: str
    students: Annotated[list[StudentSpec], Field(min_length=1)]
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

    @field_validator("students")
    @classmethod
    def _one_decoder(cls, students: list[StudentSpec]) -> list[StudentSpec]:
        if len({student.decoder for student in students}) > 1:
            raise PydanticCustomError("students", "students of one entry have one decoder: make another entry")
        return students

    def request(self, dtype: Dtype) -> SpeedRequest:
        """What to time."""
        height, width = map(int, self.size.split("x"))
        decoder = self.students[0].decoder
        return SpeedRequest(
            model=self.model,
            plans=tuple(student.plan for student in self.students),
            random_weights=True,
            size=(height, width),
            frames=self.frames,
            steps=self.steps,
            dtype=dtype,
            attention=self.attention,
            compiled=self.compiled,
            optimized=self.optimized,
            runs=self.runs,
            warmup=self.warmup,
            scopes=tuple(self.scopes),
            decoder=None if decoder is None else tuple(map(int, decoder.split(","))),
            channels=self.channels,
            projected_steps=self.projected_steps,
            attributed=self.attributed,
        )


class SpeedProfile(Specification):
    """One setting of a speed suite."""

    device: Literal["cuda", "cpu"]
    dtype: Dtype
    entries: Annotated[list[EntrySpec], Field(min_length=1)]

    @field_validator("entries")
    @classmethod
    def _names_differ(cls, entries: list[EntrySpec]) -> list[EntrySpec]:
        names = [entry.name for entry in entries]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise PydanticCustomError(
                "entries", "entries that share a name: {names}: rename one", {"names": ", ".join(twice)}
            )
        return entries


class SpeedSuite(Specification):
    """A speed suite with one profile chosen."""

    name: str
    version: Positive
    profile_name: str
    profile: SpeedProfile

    def entry(self, name: str) -> EntrySpec:
        """The entry of that name; raises SuiteError where there is none."""
        for entry in self.profile.entries:
            if entry.name == name:
                return entry
        known = {entry.name: entry for entry in self.profile.entries}
        raise SuiteError(f"profile {self.profile_name} has no entry {name!r}; {nearest_key(name, known)}")


class _Header(Specification):
    name: str
    version: Positive
    default_profile: str
    profiles: dict[str, dict[str, Any]]


def load_speed_suite(path: Path, profile: str | None = None) -> SpeedSuite:
    """Read a speed suite and choose its profile, the default one when None.

    Raises:
        SuiteError: with file:line:column, what is wrong and the nearest valid key.
    """
    document = Document.read(path, "a speed suite, a mapping with name, version, default_profile and profiles,")
    header = document.validate(_Header, document.data, ())
    name = profile or header.default_profile
    if name not in header.profiles:
        raise SuiteError(f"{path}: no profile {name!r}; {nearest_key(name, header.profiles)}")
    chosen = document.validate(SpeedProfile, document.resolve_profile(name), ("profiles", name))
    return SpeedSuite(name=header.name, version=header.version, profile_name=name, profile=chosen)


def with_paper(report: dict[str, Any], entry: EntrySpec) -> dict[str, Any]:
    """A report with the paper's numbers in its rows, marked as of other hardware."""
    said: dict[str, list[dict[str, Any]]] = {}
    for each in entry.paper:
        said.setdefault(each.scope, []).append(
            {**each.model_dump(exclude={"scope"}), "ratio": each.ratio, "hardware": "other"}
        )
    rows = [{**row, "paper": said.get(row["scope"], [])} for row in report["rows"]]
    return {**report, "entry": entry.name, "rows": rows}


def speed_lines(reports: list[dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """The header and one line a student and scope over several reports, the paper's number beside ours."""
    header = ["entry", "scope", "model", "median (ms)", "teacher (ms)", "speed-up", "95 % interval", "by FLOPs"]
    header += ["paper (other hardware)", "verdict"]
    lines = []
    for report in reports:
        teachers = {row["scope"]: row for row in report["rows"] if row["speedup"] is None}
        for row in report["rows"]:
            if row["speedup"] is None:
                continue
            paper = ", ".join(f"x{each['ratio']:.3g}" for each in row["paper"] if each["ratio"] is not None)
            low, high = row["speedup_ci"]
            lines.append(
                [
                    report["entry"],
                    row["scope"],
                    row["model"],
                    f"{row['median_ms']:.4g}",
                    f"{teachers[row['scope']]['median_ms']:.4g}",
                    f"x{row['speedup']:.3f}",
                    f"{low:.3f} to {high:.3f}",
                    "-" if row["flop_speedup"] is None else f"x{row['flop_speedup']:.3f}",
                    paper or "-",
                    row["verdict"],
                ]
            )
    return header, lines
