"""What every stage of a run works with: the suite, the store, the chosen clips and the jobs' folders."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vdmini_bench.clips import ChosenClips
from vdmini_bench.errors import BenchError
from vdmini_bench.fingerprint import Fingerprint
from vdmini_bench.jobs import Job
from vdmini_bench.measurement import Score
from vdmini_bench.store import Store, write_atomically
from vdmini_bench.suite import Suite

if TYPE_CHECKING:
    import torch
    from diffusers import StableVideoDiffusionPipeline

    from vdmini.models import VideoModel
    from vdmini.sample import SampleSettings
    from vdmini_bench.recipe import Recipe

SCORES = "scores.json"
STUDENT = "student"


@dataclass(frozen=True)
class Workbench:
    """One run's fixed surroundings; stages read it and write only into their own folder.

    `teacher` is where the teacher loads from, `plan` a rule or the JSON of a plan, `workers` how many processes decode.
    """

    suite: Suite
    store: Store
    clips: ChosenClips
    teacher: str
    teacher_digest: str
    plan: str
    jobs: dict[str, Job]
    run_id: str
    fingerprint: Fingerprint
    workers: int = 1

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
        return load_model(self.model_source(model), family="svd", device=self.device, dtype=dtype)

    def load_pipeline(self, model: str) -> StableVideoDiffusionPipeline:
        """Load `teacher`, `pruned` or `student` as the pipeline that samples.

        Raises:
            BenchError: the source holds a denoiser alone.
        """
        pipeline = self.load(model).pipeline
        if pipeline is None:
            raise BenchError(f"{self.model_source(model)} holds no pipeline; give a folder with a model_index.json")
        return pipeline

    @property
    def recipe(self) -> Recipe:
        """What encoding, pruning and distilling work from."""
        from vdmini_bench.distill_run import recipe_of_suite

        return recipe_of_suite(self.suite, self.clips.train, self.teacher, self.teacher_digest, self.plan)

    @property
    def device(self) -> torch.device:
        """The first GPU when there is one."""
        import torch

        return torch.device("cuda" if torch.cuda.is_available() else "cpu")

    @property
    def sample_settings(self) -> SampleSettings:
        """The profile's sampler settings as the library takes them."""
        from vdmini.sample import SampleSettings

        profile = self.suite.profile
        chosen = profile.sample.model_dump(exclude={"batch_size"})
        return SampleSettings(
            frames=profile.protocol.frames, frames_per_second=profile.protocol.frames_per_second, **chosen
        )


def write_scores(folder: Path, bench: Workbench, scores: list[Score]) -> None:
    """Keep scores with where and when they were measured, which later runs that reuse them repeat."""
    from datetime import UTC, datetime

    fingerprint = bench.fingerprint
    record = {
        "run_id": bench.run_id,
        "date": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "machine_id": fingerprint.machine_id,
        "gpu": fingerprint.gpu,
        "torch": fingerprint.versions["torch"],
        "commit": fingerprint.commit,
        "dirty": fingerprint.dirty,
        "scores": [score.to_json() for score in scores],
    }
    write_atomically(folder / SCORES, json.dumps(record, indent=1))
