"""What the stages of a run work with: the store, the jobs' folders, the chosen clips and the models."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from vdmini_bench.config.suite import CommonSuite
from vdmini_bench.distill.trainer import STUDENT
from vdmini_bench.errors import BenchError
from vdmini_bench.results.score import SCORES, Score, record_of
from vdmini_bench.results.store import Store
from vdmini_bench.suites.jobs import Job, TrainingInputs
from vdmini_bench.system.files import write_atomically
from vdmini_bench.system.fingerprint import Fingerprint

if TYPE_CHECKING:
    import torch

    from vdmini.latents import ClipSource
    from vdmini.models.registry import VideoModel
    from vdmini.requests import ClipRequest, SampleSettings
    from vdmini_bench.distill.recipe import Recipe
    from vdmini_bench.models.pruning import Pruning


@dataclass(frozen=True)
class RunContext:
    """One run's fixed surroundings, whatever asks for it; stages write only into their own folder.

    `teacher` is where the teacher loads from, `inputs` the digests of all that is read, `workers` how many processes
    decode; `run_id` is empty where there is no run, only jobs.
    """

    store: Store
    fingerprint: Fingerprint
    teacher: str
    pruning: Pruning
    inputs: TrainingInputs
    jobs: dict[str, Job]
    workers: int = field(default=1, kw_only=True)
    run_id: str = field(default="", kw_only=True)

    @property
    def recipe(self) -> Recipe:
        """What encoding, pruning and distilling work from."""
        raise NotImplementedError

    def folder(self, job_name: str) -> Path:
        """Where the job of that name leaves its output."""
        job = self.jobs[job_name]
        return self.store.work_folder(job.stage, job.key)

    def is_done(self, job_name: str) -> bool:
        """Whether the job of that name has run to its end."""
        job = self.jobs[job_name]
        return self.store.is_done(job.stage, job.key)


@dataclass(frozen=True)
class ScoringContext(RunContext):
    """The surroundings of what is scored under a suite."""

    suite: CommonSuite

    def warnings(self) -> list[str]:
        """What the chosen clips make look better than it is, one line each."""
        return []

    @property
    def protocol_name(self) -> str:
        """The protocol under which a score is missing that could not be measured."""
        raise NotImplementedError


@dataclass(frozen=True)
class SuiteContext(ScoringContext):
    """The surroundings of a suite's run: models sample clips, which are scored.

    `clips` is what the kind of suite chose to train on and to ask models for.
    """

    clips: object

    # The family that the teacher must be of, any when None; and how sampled clips are kept.
    family: ClassVar[str | None] = None
    suffix: ClassVar[str] = ".mkv"

    @property
    def training_clips(self) -> ClipSource:
        """The clips that the student is distilled on."""
        raise NotImplementedError

    @property
    def clip_names(self) -> Sequence[str]:
        """The names of the clips that every model is asked for."""
        raise NotImplementedError

    @property
    def clips_per_model(self) -> int:
        """How many clips every model is asked for, also before they are chosen."""
        return len(self.clip_names)

    @property
    def prompts(self) -> Sequence[str]:
        """The texts that every model is asked for, where it samples from texts."""
        return ()

    def requests(self, indices: Sequence[int]) -> list[ClipRequest]:
        """What a model is asked for, by index in `clip_names`; raises IncompleteError for unreadable conditions."""
        raise NotImplementedError

    def check_requests(self, indices: Sequence[int]) -> None:
        """Look at once at all that will be read one batch after the other; raises IncompleteError."""

    def examples(self, count: int) -> dict[str, list[Path]]:
        """Video files of the first `count` examples for people to look at, by row of the table."""
        raise NotImplementedError

    @property
    def recipe(self) -> Recipe:
        """What encoding, pruning and distilling work from."""
        from vdmini.conditioning.base import EncodeSettings
        from vdmini_bench.data.captioned import CaptionedVideos
        from vdmini_bench.distill.recipe import Recipe

        profile, sample, source = self.suite.profile, self.suite.profile.sample, self.training_clips
        return Recipe(
            teacher=self.teacher,
            teacher_sha256=self.inputs.teacher,
            pruning=self.pruning,
            dtype=profile.dtype,
            clips=lambda model, folder: source,
            count=profile.train_clips,
            frames=profile.frames,
            height=sample.height,
            width=sample.width,
            encoding=EncodeSettings(profile.frames_per_second, sample.motion_bucket, sample.noise_strength),
            distill=profile.distill,
            prompts=[video.caption for video in source.videos] if isinstance(source, CaptionedVideos) else (),
        )

    def clip_path(self, subject: str, name: str) -> Path:
        """Where the job that samples for a row of the table keeps the clip of that name."""
        return self.folder(f"sample {subject}") / "clips" / f"{name}{self.suffix}"

    def model_source(self, model: str) -> str:
        """The folder or name that `teacher`, `pruned` or `student` loads from."""
        if model == "teacher":
            return self.teacher
        return str(self.folder("prune" if model == "pruned" else "distill") / STUDENT)

    def load(self, model: str) -> VideoModel:
        """Load `teacher`, `pruned` or `student` with the pipeline that samples, in the profile's number format.

        Raises:
            BenchError: the source holds a denoiser alone.
        """
        import torch

        from vdmini import load_model

        dtype = getattr(torch, self.suite.profile.dtype)
        loaded = load_model(self.model_source(model), family=self.family, device=self.device, dtype=dtype)
        if loaded.pipeline is None:
            raise BenchError(f"{self.model_source(model)} holds no pipeline; give a folder with a model_index.json")
        return loaded

    @property
    def device(self) -> torch.device:
        """This process's GPU when there is one."""
        from vdmini_bench.system.launch import process_device

        return process_device()

    @property
    def sample_settings(self) -> SampleSettings:
        """The profile's sampler settings as the library takes them."""
        from vdmini.requests import SampleSettings

        profile = self.suite.profile
        chosen = profile.sample.model_dump(exclude={"batch_size", "seed"})
        return SampleSettings(frames=profile.frames, frames_per_second=profile.frames_per_second, **chosen)


def write_scores(
    folder: Path, context: ScoringContext, scores: Sequence[Score], notes: Mapping[str, str] | None = None
) -> None:
    """Keep scores with where and when they were measured, which later runs that reuse them repeat.

    `notes` say by metric what a reader of its row must know.
    """
    record = {"run_id": context.run_id, **record_of(scores, context.fingerprint, notes or {})}
    write_atomically(folder / SCORES, json.dumps(record, indent=1))
