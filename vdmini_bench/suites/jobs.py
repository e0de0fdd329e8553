"""A suite as a list of jobs: each is addressed by the hash of all that determines its output."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from vdmini_bench.config.protocol import ProtocolSpec
from vdmini_bench.config.suite import WITHOUT_EFFECT, CommonProfile, DistillSpec, Profile
from vdmini_bench.results.versions import STAGE_VERSIONS
from vdmini_bench.system.files import key_of

if TYPE_CHECKING:
    from vdmini_bench.config.distillation import DistillConfig

ENCODED_WITH = {"height", "width", "motion_bucket", "noise_strength"}
GENERATED = ("teacher", "pruned", "student")
# The jobs that each of these models comes from.
SOURCES: dict[str, tuple[str, ...]] = {"teacher": (), "pruned": ("prune",), "student": ("distill",)}
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
class TrainingInputs:
    """Digests of everything a distillation reads: the teacher's checkpoint, the training clips, the software."""

    teacher: str
    plan: str
    train_clips: str
    versions: dict[str, str]


@dataclass(frozen=True)
class RunInputs(TrainingInputs):
    """Those and what else any run reads: the machine that it times models on."""

    machine_id: str


@dataclass(frozen=True)
class Inputs(RunInputs):
    """Digests of everything a run reads that is scored on distributions: also the chosen clips and the I3D weights."""

    condition_clips: str
    real_clips: str
    reference: str
    i3d: str


@dataclass
class _Jobs:
    """Jobs by name as they are planned: each key holds those of the jobs it needs."""

    versions: dict[str, str]
    planned: dict[str, Job] = field(default_factory=dict)

    def add(self, stage: str, subject: str, needs: tuple[str, ...], estimate: float, **settings: Any) -> None:
        content = {
            "stage": stage,
            "version": STAGE_VERSIONS[stage],
            "subject": subject,
            "needs": [self.planned[need].key for need in needs],
            "versions": self.versions,
            **settings,
        }
        job = Job(stage, subject, key_of(content), needs, estimate)
        self.planned[job.name] = job

    def add_training(
        self, inputs: TrainingInputs, clip: dict[str, Any], count: int, dtype: str, distill: DistillSpec
    ) -> None:
        """The three jobs of a distillation of `count` clips; `clip` is what decides how each is encoded."""
        teacher, settings = inputs.teacher, distill.model_dump(exclude=WITHOUT_EFFECT)
        add = self.add
        add("encode", "", (), 0.07 * count, teacher=teacher, clips=inputs.train_clips, clip=clip)
        add("prune", "", (), 3, teacher=teacher, plan=inputs.plan, dtype=dtype)
        add("distill", "", ("encode", "prune"), distill.steps * distill.batch_size * 0.2, distill=settings)

    def add_reference(self, protocol: ProtocolSpec, clips: str, networks: str) -> None:
        """The real statistics: kept by content, so that runs and scores of any videos share them."""
        estimate = 2 if protocol.reference == "shipped" else 0.4 * protocol.reference_clips
        self.add("reference", "", (), estimate, protocol=protocol.model_dump(), clips=clips, i3d=networks)

    def add_timing(self, profile: CommonProfile, teacher: str, machine_id: str) -> None:
        """Teacher and student timed side by side."""
        runs = profile.timing.runs + profile.timing.warmup + 1
        settings = {"teacher": teacher, "timing": profile.timing.model_dump(), "clip": _clip(profile)}
        self.add("time", "", ("prune", "distill"), runs * 6.0, machine=machine_id, **settings)


def plan_scoring(
    protocol: ProtocolSpec, subject: str, clips: str, reference: str, networks: str, versions: dict[str, str]
) -> dict[str, Job]:
    """The two jobs that score videos made elsewhere: `reference`, as a run has it, and `measure`.

    `clips` and `reference` are digests of the videos and of how they are read.
    """
    jobs = _Jobs(versions)
    jobs.add_reference(protocol, reference, networks)
    settings = {"clips": clips, "protocol": protocol.model_dump(), "i3d": networks}
    jobs.add("measure", subject, ("reference",), protocol.clips * 0.4, **settings)
    return jobs.planned


def plan_training(profile: CommonProfile, inputs: TrainingInputs) -> dict[str, Job]:
    """The jobs of a profile that end with its student: `encode`, `prune` and `distill`."""
    jobs = _Jobs(inputs.versions)
    # Encoding reads the clip's size and condition, not how it will be sampled.
    encoded = {**_clip(profile), "sample": profile.sample.model_dump(include=ENCODED_WITH)}
    jobs.add_training(inputs, encoded, profile.train_clips, profile.dtype, profile.distill)
    return jobs.planned


def plan_configured(configuration: DistillConfig, dtype: str, inputs: TrainingInputs, count: int) -> dict[str, Job]:
    """The same jobs of a distillation's own configuration, in that number format and on `count` clips."""
    jobs = _Jobs(inputs.versions)
    encoded = {"dtype": dtype, "clips_per_shard": configuration.data.clips_per_shard}
    jobs.add_training(inputs, configuration.clip.model_dump() | encoded, count, dtype, configuration.distill)
    return jobs.planned


def plan_jobs(profile: Profile, inputs: Inputs) -> dict[str, Job]:
    """All jobs of a profile by name, in an order in which each comes after what it needs."""
    jobs = _Jobs(inputs.versions, plan_training(profile, inputs))
    add, clip = jobs.add, _clip(profile)
    protocol = profile.protocol.model_dump()
    generated = profile.protocol.clips
    jobs.add_reference(profile.protocol, inputs.reference, inputs.i3d)
    for model in GENERATED:
        settings: dict[str, Any] = {"teacher": inputs.teacher, "conditions": inputs.condition_clips, "clip": clip}
        # The rate at which first frames are taken of the files.
        settings |= {"seed": profile.sample.seed, "rate": profile.rate}
        cost = 0.03 if model == "teacher" else 0.025
        add("sample", model, SOURCES[model], generated * profile.sample.steps * cost, count=generated, **settings)
    clips = {"real": inputs.real_clips, "static": inputs.condition_clips}
    for row in ROWS:
        needs = ("reference", f"sample {row}") if row in GENERATED else ("reference",)
        read = clips.get(row, "")
        add("measure", row, needs, generated * 0.2, clips=read, protocol=protocol, i3d=inputs.i3d)
    jobs.add_timing(profile, inputs.teacher, inputs.machine_id)
    return jobs.planned


@dataclass(frozen=True)
class PromptedInputs(RunInputs):
    """Digests of all that a run in VBench's dimensions reads.

    `asked` is that of what models are asked for, `judges` has those of what scores each dimension, and `reasons` says
    of the others why nothing does.
    """

    asked: str
    judges: dict[str, str]
    reasons: dict[str, str]


def plan_judging(
    profile: CommonProfile, inputs: PromptedInputs, protocol: str, count: int, *, drawn: bool
) -> dict[str, Job]:
    """All jobs of a profile that is scored in VBench's dimensions, on `count` videos a model.

    One judges each model in each dimension, so that a run that was stopped goes on with the next. `protocol` is its
    name in the scores. `drawn`: the prompts are the drawn world's, of which there is no total, and what the videos
    should show is drawn too, as the `real` row.
    """
    jobs = _Jobs(inputs.versions, plan_training(profile, inputs))
    add, clip = jobs.add, _clip(profile)
    if drawn:
        add("draw", "real", (), 0.02 * count, asked=inputs.asked, clip=clip)
    # Guidance by text runs the denoiser twice a step.
    cost = 0.07 * profile.sample.steps * count
    for model in GENERATED:
        settings = {"teacher": inputs.teacher, "asked": inputs.asked, "clip": clip}
        add("sample", model, SOURCES[model], cost, **settings)
    for row in ("real", *GENERATED) if drawn else GENERATED:
        needs = ("draw real",) if row == "real" else (f"sample {row}",)
        for judge, digest in inputs.judges.items():
            add("judge", f"{row} {judge}", needs, 2 + 0.02 * count, asked=inputs.asked, judge=digest, protocol=protocol)
        judged = () if drawn else tuple(f"judge {row} {judge}" for judge in inputs.judges)
        add("total", row, judged, 0.1, asked=inputs.asked, reasons=inputs.reasons, protocol=protocol)
    jobs.add_timing(profile, inputs.teacher, inputs.machine_id)
    return jobs.planned


def _clip(profile: CommonProfile) -> dict[str, Any]:
    return {
        "frames": profile.frames,
        "frames_per_second": profile.frames_per_second,
        # Other seeds are timed no differently.
        "sample": profile.sample.model_dump(exclude={"seed"}),
        "dtype": profile.dtype,
    }
