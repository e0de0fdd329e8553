"""A distillation's own configuration as a kind of suite: three stages, of any family, on any clips."""

from __future__ import annotations

from dataclasses import dataclass

from vdmini.conditioning import conditioning_of
from vdmini.conditioning.base import EncodeSettings
from vdmini.errors import ModelLoadError, PlanError
from vdmini.models.loading import load_model
from vdmini.prune import apply_plan
from vdmini_bench.config.distillation import DistillConfig
from vdmini_bench.distill.recipe import Recipe
from vdmini_bench.errors import SuiteError
from vdmini_bench.models.devices import choose_dtype
from vdmini_bench.models.pruning import Pruning
from vdmini_bench.models.source import model_folder, source_sha256
from vdmini_bench.results.store import Store
from vdmini_bench.results.versions import deciding_versions
from vdmini_bench.suites.context import RunContext
from vdmini_bench.suites.jobs import TrainingInputs, plan_configured
from vdmini_bench.suites.missing import Missing
from vdmini_bench.suites.training_clips import ConfiguredClips, configured_clips, preview_of
from vdmini_bench.system.fingerprint import take_fingerprint
from vdmini_bench.system.launch import process_device


@dataclass(frozen=True)
class Distillation:
    """The kind of suite, as `SuiteKind` says it; nothing of it is scored, whatever is asked for."""

    configuration: DistillConfig

    def missing(self, *, measured: bool = True) -> list[Missing]:
        """Nothing: what a configuration names is found when it is opened, or is an error."""
        return []

    def first(self, store: Store, *, measured: bool = True) -> list[str]:
        """Nothing: the teacher draws clips in the first stage."""
        return []

    def prepare(self, store: Store, *, measured: bool = True) -> None:
        """Do nothing."""

    def open(
        self, store: Store, *, measured: bool = True, remember: bool = True, machine: str = ""
    ) -> DistillationContext:
        """Find the teacher and the clips, and digest them.

        Raises:
            SuiteError: the teacher, the plan or the clips are missing or do not fit.
        """
        asked, fingerprint = self.configuration, take_fingerprint()
        clips, teacher = configured_clips(asked, store, remember=remember), str(model_folder(asked.teacher))
        dtype = str(choose_dtype(asked.dtype, teacher, process_device())).removeprefix("torch.")
        try:
            model = load_model(teacher, device="meta")
            conditioning_of(model.denoiser)
        except ModelLoadError as error:
            raise SuiteError(f"teacher: {error}") from error
        pruning = Pruning.read(asked.plan, asked.channels, model.family)
        try:
            # Before any weights are read.
            apply_plan(model.denoiser, pruning.plan_of(model))
        except PlanError as error:
            raise SuiteError(f"plan: {error}") from error
        versions = deciding_versions(fingerprint.versions)
        inputs = TrainingInputs(source_sha256(teacher), {"": str(pruning)}, {}, clips.digest, versions)
        graph = plan_configured(asked, dtype, inputs, len(clips.prompts))
        return DistillationContext(store, fingerprint, teacher, {"": pruning}, inputs, graph, asked, clips, dtype)


@dataclass(frozen=True)
class DistillationContext(RunContext):
    """The surroundings of a distillation alone; `dtype` is the number format that the teacher is loaded in."""

    configuration: DistillConfig
    clips: ConfiguredClips
    dtype: str

    def recipe(self, subject: str) -> Recipe:
        """What encoding, pruning and distilling work from."""
        asked, clip, preview = self.configuration, self.configuration.clip, preview_of(self.configuration)
        shown = preview.requests if preview else ()
        return Recipe(
            teacher=self.teacher,
            teacher_sha256=self.inputs.teacher,
            pruning=self.prunings[""],
            lora=None,
            dtype=self.dtype,
            clips=self.clips.clips,
            count=len(self.clips.prompts),
            frames=clip.frames,
            height=clip.height,
            width=clip.width,
            encoding=EncodeSettings(clip.frames_per_second, clip.motion_bucket, clip.noise_strength),
            distill=asked.distill,
            clips_per_shard=asked.data.clips_per_shard,
            skip_unreadable=asked.data.skip_unreadable,
            preview=preview,
            prompts=(*self.clips.prompts, *(each.prompt or "" for each in shown)),
        )
