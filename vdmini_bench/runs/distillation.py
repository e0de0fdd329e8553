"""Distil what a suite or a configuration asks for: find the clips, then encode, prune and distil what is not done."""

from __future__ import annotations

import csv
import json
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from vdmini.conditioning import conditioning_of
from vdmini.conditioning.base import EncodeSettings
from vdmini.distill import DivergedError
from vdmini.errors import ModelLoadError, PlanError
from vdmini.finite import NotFiniteError
from vdmini.models.loading import load_model
from vdmini.models.registry import VideoModel
from vdmini.plan import PruningPlan
from vdmini.prune import apply_plan
from vdmini_bench.config.distillation import DistillConfig
from vdmini_bench.config.suite import CommonSuite, Suite
from vdmini_bench.config.vbench import VBenchSuite
from vdmini_bench.data.ucf101 import VideoFile, read_split
from vdmini_bench.distill.loss_log import LOSSES
from vdmini_bench.distill.recipe import STUDENT, Recipe
from vdmini_bench.distill.steps import distill_student, encode_clips, prune_teacher
from vdmini_bench.distill.trainer import SUMMARY, settings_of
from vdmini_bench.errors import ExitCode, MissingAssetsError, SuiteError
from vdmini_bench.models.devices import choose_dtype
from vdmini_bench.models.pruning import plan_of, pruning_text
from vdmini_bench.models.source import model_folder, teacher_digest
from vdmini_bench.results.store import Store
from vdmini_bench.results.versions import deciding_versions
from vdmini_bench.runs.execution import LOG, perform_job
from vdmini_bench.suites.clip_selection import choose_clips
from vdmini_bench.suites.datasets import DRAWN, dataset_root, digest_videos, draw_dataset
from vdmini_bench.suites.jobs import Job, TrainingInputs, plan_configured, plan_training
from vdmini_bench.suites.missing import Missing, find_missing, missing_table
from vdmini_bench.suites.recipes import recipe_of_profile, recipe_of_suite
from vdmini_bench.suites.training_clips import DatasetClips, configured_clips, preview_of
from vdmini_bench.suites.vbench import find_missing as find_missing_of_videos
from vdmini_bench.suites.vbench import training_inputs
from vdmini_bench.suites.vbench_training_clips import training_data
from vdmini_bench.system.files import check_writable
from vdmini_bench.system.fingerprint import package_versions
from vdmini_bench.system.launch import is_main, leave, on_main, process_device

# One step's losses say little: the last ones are averaged.
LAST_STEPS = 50


@dataclass(frozen=True)
class Distillation:
    """A recipe and its three jobs, in the order they run."""

    recipe: Recipe
    store: Store
    jobs: tuple[Job, ...]

    def folder(self, stage: str) -> Path:
        """Where a stage leaves its output."""
        return next(self.store.work_folder(job.stage, job.key) for job in self.jobs if job.stage == stage)

    def is_done(self, stage: str) -> bool:
        """Whether a stage has run to its end."""
        return any(self.store.is_done(job.stage, job.key) for job in self.jobs if job.stage == stage)


def prepare_distillation(
    asked: Suite | VBenchSuite | DistillConfig, results: Path, processes: int, *, write: bool
) -> Distillation:
    """Find what a distillation reads and digest it; with `write` also draw the clips that a suite has drawn.

    Raises:
        MissingAssetsError: something has to be imported by hand.
        SuiteError: the teacher, the plan or the clips are missing or do not fit.
        BenchError: the results folder cannot be written.
    """
    store = Store(results)
    _check_share(asked, processes)
    missing: list[Missing] = []
    if isinstance(asked, Suite):
        missing = find_missing(asked.profile, measured=False)
    elif isinstance(asked, VBenchSuite):
        missing = find_missing_of_videos(asked.profile, measured=False)
    if missing:
        assert isinstance(asked, CommonSuite)
        raise MissingAssetsError(missing_table(asked, missing))
    if write:
        check_writable(results)
    if isinstance(asked, DistillConfig):
        return _of_configuration(asked, store, write)
    return _of_suite(asked, store, write) if isinstance(asked, Suite) else _of_vbench(asked, store, write)


def _of_suite(suite: Suite, store: Store, write: bool) -> Distillation:
    profile = suite.profile
    root = dataset_root(profile.dataset, store)
    assert root is not None
    drawn = profile.dataset.kind == "drawn"
    if drawn and write:
        draw_dataset(root, profile.dataset)
    train: tuple[VideoFile, ...] = ()
    digest = "not drawn yet"
    if not drawn or (root / DRAWN).exists():
        train = choose_clips(read_split(root, profile.dataset.split), profile).train
        digest = digest_videos(train, store, root, "train", write)
    inputs = TrainingInputs(
        teacher_digest(profile.teacher),
        pruning_text(profile.plan, profile.channels),
        digest,
        deciding_versions(package_versions()),
    )
    teacher = str(model_folder(profile.teacher))
    recipe = recipe_of_suite(suite, train, teacher, inputs.teacher, inputs.plan)
    return Distillation(recipe, store, tuple(plan_training(profile, inputs)))


def _of_vbench(suite: VBenchSuite, store: Store, write: bool) -> Distillation:
    profile = suite.profile
    data = training_data(profile, store, write=write)
    digest = "not drawn yet" if data is None else data.digest
    inputs = training_inputs(profile, digest, deciding_versions(package_versions()))
    source = DatasetClips((), profile.frames, profile.frames_per_second, 0, 0) if data is None else data.source
    teacher = str(model_folder(profile.teacher))
    recipe = recipe_of_profile(profile, source, teacher, inputs.teacher, inputs.plan)
    return Distillation(recipe, store, tuple(plan_training(profile, inputs)))


def _of_configuration(configuration: DistillConfig, store: Store, write: bool) -> Distillation:
    clips, preview = configured_clips(configuration, store, remember=write), preview_of(configuration)
    teacher, clip = str(model_folder(configuration.teacher)), configuration.clip
    dtype = str(choose_dtype(configuration.dtype, teacher, process_device())).removeprefix("torch.")
    model = _weightless(teacher)
    pruning = pruning_text(configuration.plan, configuration.channels, model.family)
    _checked_plan(model, pruning)
    inputs = TrainingInputs(
        teacher_digest(configuration.teacher), pruning, clips.digest, deciding_versions(package_versions())
    )
    recipe = Recipe(
        teacher=teacher,
        teacher_sha256=inputs.teacher,
        pruning=pruning,
        dtype=dtype,
        clips=clips.clips,
        count=len(clips.prompts),
        frames=clip.frames,
        height=clip.height,
        width=clip.width,
        encoding=EncodeSettings(clip.frames_per_second, clip.motion_bucket, clip.noise_strength),
        distill=configuration.distill,
        clips_per_shard=configuration.data.clips_per_shard,
        skip_unreadable=configuration.data.skip_unreadable,
        preview=preview,
        prompts=(*clips.prompts, *(each.prompt or "" for each in (preview.requests if preview else ()))),
    )
    return Distillation(recipe, store, tuple(plan_configured(configuration, dtype, inputs, len(clips.prompts))))


def _check_share(asked: CommonSuite | DistillConfig, processes: int) -> None:
    distill = asked.profile.distill if isinstance(asked, CommonSuite) else asked.distill
    try:
        settings_of(distill).share(processes)
    except ValueError as error:
        raise SuiteError(f"distill: {error}") from error


def _weightless(teacher: str) -> VideoModel:
    """The teacher without weights, of a family that can be distilled."""
    try:
        model = load_model(teacher, device="meta")
        conditioning_of(model.denoiser)
    except ModelLoadError as error:
        raise SuiteError(f"teacher: {error}") from error
    return model


def _checked_plan(model: VideoModel, pruning: str) -> PruningPlan:
    """The plan that a pruning's text says, found to fit before any weights are read."""
    try:
        plan = plan_of(model, pruning)
        apply_plan(model.denoiser, plan)
    except PlanError as error:
        raise SuiteError(f"plan: {error}") from error
    return plan


@dataclass(frozen=True)
class Outcome:
    """What a distillation left: the student's folder, what it took, and the last steps' mean losses."""

    student: Path
    losses_file: Path
    summary: dict[str, Any]
    losses: dict[str, float]
    averaged_steps: int
    ran: tuple[str, ...]
    cached: tuple[str, ...]

    def cost_per_1000_steps(self, price_per_hour: float) -> float:
        """What a thousand steps cost where all processes together cost `price_per_hour`."""
        return float(self.summary["hours_per_1000_steps"]) * price_per_hour

    def to_json(self) -> dict[str, Any]:
        """The object that `distill --json` prints."""
        return {
            "student": str(self.student),
            "losses_file": str(self.losses_file),
            **self.summary,
            "losses": self.losses,
            "losses_averaged_over": self.averaged_steps,
            "jobs": {"ran": list(self.ran), "cached": list(self.cached)},
        }


def run_distillation(distillation: Distillation) -> Outcome:
    """Encode, prune and distil what is not done yet; all processes of a launch call this together.

    The first process encodes and prunes while the others wait, all distil, and the first one writes.

    Raises:
        BenchError: a job failed, with its name.
    """
    recipe, store = distillation.recipe, distillation.store
    works: dict[str, Callable[[Path], None]] = {
        "encode": partial(encode_clips, recipe),
        "prune": partial(prune_teacher, recipe),
        "distill": partial(distill_student, recipe, distillation.folder("encode"), distillation.folder("prune")),
    }
    ran, cached = [], []
    for job in distillation.jobs:
        if on_main(partial(store.is_done, job.stage, job.key)):
            cached.append(job.name)
            continue
        ran.append(job.name)
        if job.stage == "distill":
            _distill_together(store, job, works[job.stage])
        else:
            on_main(partial(perform_job, store, job, works[job.stage], store.root / LOG))
    return _outcome(distillation.folder("distill"), ran, cached)


def _distill_together(store: Store, job: Job, work: Callable[[Path], None]) -> None:
    if is_main():
        perform_job(store, job, work, store.root / LOG)
        return
    try:
        work(store.work_folder(job.stage, job.key))
    except (DivergedError, NotFiniteError):
        # Every process meets it at the same place.
        leave(ExitCode.FAILED)


def _outcome(folder: Path, ran: Sequence[str], cached: Sequence[str]) -> Outcome:
    summary = json.loads((folder / SUMMARY).read_text(encoding="utf-8"))
    with (folder / LOSSES).open(newline="", encoding="utf-8") as file:
        last = list(csv.DictReader(file))[-LAST_STEPS:]
    losses = {name: statistics.fmean(float(row[name]) for row in last) for name in last[0] if name != "step"}
    return Outcome(folder / STUDENT, folder / LOSSES, summary, losses, len(last), tuple(ran), tuple(cached))
