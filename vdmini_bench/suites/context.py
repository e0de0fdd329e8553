"""What the stages of a run work with: the store, the jobs' folders, the chosen clips and the models."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from vdmini_bench.config.suite import CommonSuite
from vdmini_bench.results.score import SCORES, Score, record_of
from vdmini_bench.results.store import STUDENT, Store
from vdmini_bench.suites.job_graph import Job, JobGraph
from vdmini_bench.suites.jobs import TrainingInputs, baseline_of
from vdmini_bench.system.files import write_atomically
from vdmini_bench.system.fingerprint import Fingerprint

if TYPE_CHECKING:
    import torch

    from vdmini.latents import ClipSource
    from vdmini.models.registry import VideoModel
    from vdmini.requests import ClipRequest, SampleSettings
    from vdmini_bench.distill.recipe import Recipe
    from vdmini_bench.models.pruning import Pruning
    from vdmini_bench.models.ready import ReadyModel


@dataclass(frozen=True)
class RunContext:
    """One run's fixed surroundings, whatever asks for it; stages write only into their own folder.

    `teacher` is where the teacher loads from, `prunings` what is pruned for each row, `inputs` the digests of all that
    is read, `workers` how many processes decode; `run_id` is empty where there is no run, only jobs.
    """

    store: Store
    fingerprint: Fingerprint
    teacher: str
    prunings: Mapping[str, Pruning]
    inputs: TrainingInputs
    graph: JobGraph
    workers: int = field(default=1, kw_only=True)
    run_id: str = field(default="", kw_only=True)

    def recipe(self, subject: str) -> Recipe:
        """What encoding, pruning and distilling that subject of jobs work from."""
        raise NotImplementedError

    @property
    def jobs(self) -> dict[str, Job]:
        """All jobs by name, in order."""
        return self.graph.jobs

    def folder(self, job_name: str) -> Path:
        """Where the job of that name leaves its output."""
        job = self.jobs[job_name]
        return self.store.work_folder(job.stage, job.key)

    def input_folder(self, job_name: str, stage: str) -> Path:
        """Where the job of that stage left its output which the job of that name reads."""
        return next(self.folder(need) for need in self.jobs[job_name].needs if self.jobs[need].stage == stage)

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

    # How sampled clips are kept.
    suffix: ClassVar[str] = ".mkv"

    @property
    def training_clips(self) -> ClipSource:
        """The clips that students are trained on."""
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

    def batch_size(self, model: str) -> int:
        """How many clips a model samples together; one where its measures would let one decide for another."""
        spec = self.graph.models[model].spec
        return 1 if any(each.one_clip_at_a_time for each in spec.acceleration) else spec.sample.batch_size

    def baseline_of(self, model: str) -> str:
        """The model that another is compared with, of the same training where the baseline has several."""
        return baseline_of(self.graph, self.suite.profile, model)

    def examples(self, count: int) -> dict[str, list[Path]]:
        """Video files of the first `count` examples for people to look at, by row of the table."""
        raise NotImplementedError

    def recipe(self, subject: str) -> Recipe:
        """What encoding, pruning and distilling a model work from; the teacher's own where no model is named."""
        from vdmini.conditioning.base import EncodeSettings
        from vdmini_bench.data.captioned import CaptionedVideos
        from vdmini_bench.distill.recipe import Recipe

        profile, sample, source = self.suite.profile, self.suite.profile.sample, self.training_clips
        model = self.graph.models.get(subject)
        teacher, digest = (self.teacher, self.inputs.teacher) if model is None else model.teacher
        return Recipe(
            teacher=teacher,
            teacher_sha256=digest,
            pruning=None if model is None else self.prunings[model.row],
            lora=None if model is None else model.spec.lora,
            dtype=profile.dtype,
            clips=lambda model, folder: source,
            count=profile.train_clips,
            frames=profile.frames,
            height=sample.height,
            width=sample.width,
            encoding=EncodeSettings(profile.frames_per_second, sample.motion_bucket, sample.noise_strength),
            distill=None if model is None else model.spec.distill,
            prompts=[video.caption for video in source.videos] if isinstance(source, CaptionedVideos) else (),
            parent=None if model is None or model.parent is None else self._finished(model.parent),
        )

    def _finished(self, model: str) -> tuple[str, str]:
        """A model's folder once its jobs are done, and the identity of its weights; before, what it is made from."""
        folder, made = self.weights_folder(model), self.graph.models[model]
        # A dry run looks at sizes; the jobs that read weights wait for them.
        return (str(folder), self.jobs[made.weights[0]].key) if folder.is_dir() else made.teacher

    def clip_path(self, subject: str, name: str) -> Path:
        """Where the job that samples a model keeps the clip of that name."""
        return self.folder(self.graph.sampled[subject]) / "clips" / f"{name}{self.suffix}"

    def weights_folder(self, model: str) -> Path:
        """The pipeline's folder that a model loads from; a decoder of its own is another job's."""
        made = self.graph.models[model]
        job = made.distill or made.prune
        return Path(made.teacher[0]) if job is None else self.folder(job) / STUDENT

    def load(self, model: str, *, weights: Path | None = None) -> ReadyModel:
        """Load a model with the pipeline that samples, in the profile's number format, its measures applied.

        `weights` is a folder to load in place of its own.

        Raises:
            BenchError: the source holds a denoiser alone.
        """
        import torch

        from vdmini_bench.models.ready import load_ready

        made, dtype = self.graph.models[model], getattr(torch, self.suite.profile.dtype)
        decoder = None if made.decoder is None else self.folder(made.decoder)
        folder = weights or self.weights_folder(model)
        return load_ready(folder, decoder, made.spec.acceleration, self.device, dtype, self.suite.profile.cpu_offload)

    def costing_folder(self, model: str) -> Path:
        """The folder of weights that cost what a model's do: before any training, unless its measures look at them."""
        made = self.graph.models[model]
        untrained = Path(made.teacher[0]) if made.prune is None else self.folder(made.prune) / STUDENT
        return self.weights_folder(model) if made.spec.is_cached else untrained

    def without_weights(self, model: str) -> VideoModel:
        """A model's networks by their sizes alone."""
        from vdmini import load_model
        from vdmini_bench.models.ready import load_decoder

        loaded, made = load_model(self.costing_folder(model), device="meta"), self.graph.models[model]
        if made.decoder is None:
            return loaded
        return replace(loaded, vae=load_decoder(self.folder(made.decoder)).to("meta"))

    @property
    def device(self) -> torch.device:
        """This process's GPU when there is one."""
        from vdmini_bench.system.launch import process_device

        return process_device()

    def sample_settings(self, model: str | None = None) -> SampleSettings:
        """A model's sampler settings as the library takes them, or the profile's own."""
        profile = self.suite.profile
        return profile.sampler(profile.sample if model is None else self.graph.models[model].spec.sample)


def write_scores(
    folder: Path, context: ScoringContext, scores: Sequence[Score], notes: Mapping[str, str] | None = None
) -> None:
    """Keep scores with where and when they were measured, which later runs that reuse them repeat.

    `notes` say by metric what a reader of its row must know.
    """
    record = {"run_id": context.run_id, **record_of(scores, context.fingerprint, notes or {})}
    write_atomically(folder / SCORES, json.dumps(record, indent=1))
