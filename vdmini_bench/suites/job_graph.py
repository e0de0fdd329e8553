"""Jobs and what they make: each is addressed by the hash of all that determines its output."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from vdmini_bench.config.models import ModelSpec
from vdmini_bench.results.versions import STAGE_VERSIONS
from vdmini_bench.system.files import key_of


@dataclass(frozen=True)
class Job:
    """One unit of work. `needs` names the jobs whose output it reads; `estimate` is seconds on two CPU cores."""

    stage: str
    subject: str
    key: str
    needs: tuple[str, ...]
    estimate: float

    @property
    def name(self) -> str:
        """The stage and its subject, unique in a run."""
        return f"{self.stage} {self.subject}".strip()


@dataclass(frozen=True)
class Model:
    """One training of a row's model, with the jobs that it comes from; None where there is nothing to do.

    `teacher` is what it loads from and learns from, its folder and its digest. `parent` names the model whose finished
    denoiser is pruned and learned from instead, where there is one.
    """

    row: str
    spec: ModelSpec
    teacher: tuple[str, str]
    parent: str | None = None
    encode: str | None = None
    prune: str | None = None
    distill: str | None = None
    decoder: str | None = None

    @property
    def weights(self) -> tuple[str, ...]:
        """The jobs whose output the whole model is loaded from."""
        return tuple(job for job in (self.distill or self.prune, self.decoder) if job is not None)


@dataclass(frozen=True)
class Measured:
    """What a row of the table is measured by: the same stage's jobs, one a training of its model."""

    row: str
    jobs: tuple[str, ...]


@dataclass
class JobGraph:
    """The jobs of a run by name, each after what it needs; its models by name; and what its rows are measured by.

    `sampled` names the job that samples each model: two models that draw the same clips share it.
    """

    versions: Mapping[str, str]
    jobs: dict[str, Job] = field(default_factory=dict)
    models: dict[str, Model] = field(default_factory=dict)
    sampled: dict[str, str] = field(default_factory=dict)
    measured: list[Measured] = field(default_factory=list)

    def add(self, stage: str, subject: str, needs: tuple[str, ...], estimate: float, **settings: Any) -> str:
        """Plan a job, or find the one that does the same work already; its name."""
        content = {
            "stage": stage,
            "version": STAGE_VERSIONS[stage],
            "needs": [self.jobs[need].key for need in needs],
            "versions": self.versions,
            **settings,
        }
        job = Job(stage, subject, key_of(content), needs, estimate)
        same = (each.name for each in self.jobs.values() if (each.stage, each.key) == (stage, job.key))
        name = next(same, job.name)
        self.jobs.setdefault(name, job)
        return name

    def of_row(self, row: str) -> dict[str, Model]:
        """The trainings of a row's model by name."""
        return {name: model for name, model in self.models.items() if model.row == row}

    def note(self, row: str, *jobs: str) -> None:
        """Say what a row is measured by."""
        self.measured.append(Measured(row, tuple(dict.fromkeys(jobs))))

    def needed(self, names: set[str]) -> list[Job]:
        """The jobs of these names and all that they need, in order."""
        needed = set(names)
        for job in reversed(self.jobs.values()):
            needed |= {*job.needs} if job.name in needed else set()
        return [job for job in self.jobs.values() if job.name in needed]
