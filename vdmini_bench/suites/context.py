"""What every stage of a run works with: the suite, the store, the chosen clips and the jobs' folders."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Self

from vdmini_bench.config.suite import CommonSuite
from vdmini_bench.distill.recipe import STUDENT
from vdmini_bench.errors import BenchError
from vdmini_bench.results.score import SCORES, Score, record_of
from vdmini_bench.results.store import Store
from vdmini_bench.suites.jobs import Job
from vdmini_bench.system.files import write_atomically
from vdmini_bench.system.fingerprint import Fingerprint

if TYPE_CHECKING:
    import torch

    from vdmini.models.registry import VideoModel
    from vdmini.requests import ClipRequest, SampleSettings
    from vdmini_bench.distill.recipe import Recipe
    from vdmini_bench.suites.jobs import Prepared


@dataclass(frozen=True)
class CommonBench:
    """One run's fixed surroundings, whatever its suite is scored on; stages write only into their own folder.

    `clips` is what the kind of suite chose to train on and to ask models for, `teacher` where the teacher loads from,
    `plan` a rule or the JSON of a plan, `workers` how many processes decode.
    """

    suite: CommonSuite
    store: Store
    clips: object
    teacher: str
    teacher_digest: str
    plan: str
    jobs: dict[str, Job]
    run_id: str
    fingerprint: Fingerprint
    workers: int = 1

    # The family that the teacher must be of, any when None; and how sampled clips are kept.
    family: ClassVar[str | None] = None
    suffix: ClassVar[str] = ".mkv"

    @classmethod
    def of(
        cls, suite: CommonSuite, store: Store, start: Prepared, run_id: str, fingerprint: Fingerprint, workers: int = 1
    ) -> Self:
        """The surroundings of a run that was prepared from a suite of this class's kind."""
        inputs, jobs = start.inputs, {job.name: job for job in start.jobs}
        return cls(
            suite, store, start.clips, start.teacher, inputs.teacher, inputs.plan, jobs, run_id, fingerprint, workers
        )

    def warnings(self) -> list[str]:
        """What the chosen clips make look better than it is, one line each."""
        return []

    @property
    def recipe(self) -> Recipe:
        """What encoding, pruning and distilling work from."""
        raise NotImplementedError

    @property
    def protocol_name(self) -> str:
        """The protocol under which a score is missing that could not be measured."""
        raise NotImplementedError

    @property
    def clip_names(self) -> Sequence[str]:
        """The names of the clips that every model is asked for."""
        raise NotImplementedError

    @property
    def prompts(self) -> Sequence[str]:
        """The texts that every model is asked for, where it draws from texts."""
        return ()

    def requests(self, places: Sequence[int]) -> list[ClipRequest]:
        """What a model is asked for, by places in `clip_names`; raises IncompleteError for unreadable conditions."""
        raise NotImplementedError

    def check_requests(self, places: Sequence[int]) -> None:
        """Look at once at all that will be read one batch after the other; raises IncompleteError."""

    def examples(self, count: int) -> dict[str, list[Path]]:
        """Video files of the first `count` examples for people to look at, by row of the table."""
        raise NotImplementedError

    def clip_path(self, subject: str, name: str) -> Path:
        """Where the job that samples for a row of the table keeps the clip of that name."""
        return self.folder(f"sample {subject}") / "clips" / f"{name}{self.suffix}"

    def folder(self, job_name: str) -> Path:
        """Where the job of that name leaves its output."""
        job = self.jobs[job_name]
        return self.store.work_folder(job.stage, job.key)

    def model_source(self, model: str) -> str:
        """The folder or name that `teacher`, `pruned` or `student` loads from."""
        if model == "teacher":
            return self.teacher
        return str(self.folder("prune" if model == "pruned" else "distill") / STUDENT)

    def load(self, model: str) -> VideoModel:
        """Load `teacher`, `pruned` or `student` on the run's device in the profile's number format."""
        import torch

        from vdmini import load_model

        dtype = getattr(torch, self.suite.profile.dtype)
        return load_model(self.model_source(model), family=self.family, device=self.device, dtype=dtype)

    def load_whole(self, model: str) -> VideoModel:
        """Load `teacher`, `pruned` or `student` with the pipeline that samples.

        Raises:
            BenchError: the source holds a denoiser alone.
        """
        loaded = self.load(model)
        if loaded.pipeline is None:
            raise BenchError(f"{self.model_source(model)} holds no pipeline; give a folder with a model_index.json")
        return loaded

    @property
    def device(self) -> torch.device:
        """This process's GPU when there is one."""
        from vdmini_bench.system.sharing import share_device

        return share_device()

    @property
    def sample_settings(self) -> SampleSettings:
        """The profile's sampler settings as the library takes them."""
        from vdmini.requests import SampleSettings

        profile = self.suite.profile
        chosen = profile.sample.model_dump(exclude={"batch_size", "seed"})
        return SampleSettings(frames=profile.frames, frames_per_second=profile.frames_per_second, **chosen)


def write_scores(
    folder: Path, bench: CommonBench, scores: Sequence[Score], notes: Mapping[str, str] | None = None
) -> None:
    """Keep scores with where and when they were measured, which later runs that reuse them repeat.

    `notes` say by metric what a reader of its row must know.
    """
    record = {"run_id": bench.run_id, **record_of(scores, bench.fingerprint, notes or {})}
    write_atomically(folder / SCORES, json.dumps(record, indent=1))
