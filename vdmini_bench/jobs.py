"""A suite as a list of jobs: each is addressed by the hash of all that determines its output."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from vdmini_bench.store import key_of
from vdmini_bench.suite import Profile

# Raise a stage's number when its code changes what it writes: results of the older code are then made again.
STAGE_VERSIONS = {"encode": 1, "prune": 1, "distill": 1, "sample": 1, "reference": 1, "measure": 1, "time": 1}

ENCODED_WITH = {"height", "width", "motion_bucket", "noise_strength"}
GENERATED = ("teacher", "pruned", "student")
ROWS = ("real", "static", *GENERATED)


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
class Inputs:
    """Digests of everything a run reads: the teacher's checkpoint, the chosen clips, the I3D weights, the software."""

    teacher: str
    plan: str
    train_clips: str
    condition_clips: str
    real_clips: str
    reference: str
    i3d: str
    versions: dict[str, str]
    machine_id: str


def plan_jobs(profile: Profile, inputs: Inputs) -> list[Job]:
    """All jobs of a profile in an order in which each comes after what it needs."""
    jobs: dict[str, Job] = {}

    def add(stage: str, subject: str, needs: tuple[str, ...], estimate: float, **settings: Any) -> None:
        content = {
            "stage": stage,
            "version": STAGE_VERSIONS[stage],
            "subject": subject,
            "needs": [jobs[need].key for need in needs],
            "versions": inputs.versions,
            **settings,
        }
        job = Job(stage, subject, key_of(content), needs, estimate)
        jobs[job.name] = job

    clip = {
        "frames": profile.protocol.frames,
        "frames_per_second": profile.protocol.frames_per_second,
        "sample": profile.sample.model_dump(),
        "dtype": profile.dtype,
    }
    # Encoding reads the clip's size and condition, not how it will be sampled.
    encoded = {**clip, "sample": profile.sample.model_dump(include=ENCODED_WITH)}
    protocol = profile.protocol.model_dump()
    generated = profile.protocol.clips_per_block * profile.protocol.blocks
    add(
        "encode",
        "",
        (),
        0.07 * profile.dataset.train_clips,
        teacher=inputs.teacher,
        clips=inputs.train_clips,
        clip=encoded,
    )
    add("prune", "", (), 3, teacher=inputs.teacher, plan=inputs.plan, dtype=profile.dtype)
    distill = profile.distill.model_dump(exclude={"checkpoint_every"})
    add("distill", "", ("encode", "prune"), profile.distill.steps * profile.distill.batch_size * 0.2, distill=distill)
    add("reference", "", (), 2, protocol=protocol, clips=inputs.reference, i3d=inputs.i3d)
    sources: dict[str, tuple[str, ...]] = {"teacher": (), "pruned": ("prune",), "student": ("distill",)}
    for model in GENERATED:
        settings = {"teacher": inputs.teacher, "conditions": inputs.condition_clips, "clip": clip}
        cost = 0.03 if model == "teacher" else 0.025
        add("sample", model, sources[model], generated * profile.sample.steps * cost, count=generated, **settings)
    clips = {"real": inputs.real_clips, "static": inputs.condition_clips}
    for row in ROWS:
        needs = ("reference", f"sample {row}") if row in GENERATED else ("reference",)
        read = clips.get(row, "")
        add("measure", row, needs, generated * 0.2, clips=read, protocol=protocol, i3d=inputs.i3d)
    runs = profile.timing.runs + profile.timing.warmup + 1
    timing = profile.timing.model_dump()
    settings = {"teacher": inputs.teacher, "timing": timing, "clip": clip, "machine": inputs.machine_id}
    add("time", "", ("prune", "distill"), runs * 6.0, **settings)
    return list(jobs.values())
