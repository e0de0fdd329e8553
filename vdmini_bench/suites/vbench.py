"""Before the first job of a VBench suite: find out what is missing, draw what is drawn, and digest all that is read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vdmini.latents import ClipSource
from vdmini_bench.assets.cache import asset_path
from vdmini_bench.assets.catalogue import ASSETS
from vdmini_bench.config.suite import DatasetSpec
from vdmini_bench.config.vbench import CaptionedFolderSpec, VBenchProfile, VBenchSpec, VBenchSuite
from vdmini_bench.config.vbench_dimensions import FILTERED, PROJECTS
from vdmini_bench.models.pruning import pruning_text
from vdmini_bench.models.source import model_folder, teacher_digest
from vdmini_bench.results.store import Store
from vdmini_bench.results.versions import deciding_versions
from vdmini_bench.suites.distributions import check_ready
from vdmini_bench.suites.jobs import Job, Prepared, PromptedInputs, TrainingInputs, plan_judging
from vdmini_bench.suites.missing import Missing, missing_asset, missing_teacher
from vdmini_bench.suites.vbench_scorers import Judge, choose_judges, classifier_digest, counts
from vdmini_bench.suites.vbench_training_clips import TrainingData, training_data
from vdmini_bench.suites.vbench_videos import embedded_videos, images_folder, write_images
from vdmini_bench.system.files import key_of, sha256_of
from vdmini_bench.system.fingerprint import Fingerprint
from vdmini_bench.vbench.environment import COMMAND, Environment, default_environment
from vdmini_bench.vbench.preparation import find_prompts
from vdmini_bench.vbench.prompts import Prompt, VideoRequest, request_videos
from vdmini_bench.vbench.requirements import ENVIRONMENT, examine_dimensions, examine_native


@dataclass(frozen=True)
class ChosenVideos:
    """What a run trains on, the videos that it asks models for, and what scores them.

    `prompts` are the official ones, none in the drawn world. `reasons` say of each dimension without a judge why.
    """

    train: ClipSource
    videos: tuple[VideoRequest, ...]
    prompts: tuple[Prompt, ...]
    judges: dict[str, Judge]
    reasons: dict[str, str]


def prepare_vbench(suite: VBenchSuite, store: Store, fingerprint: Fingerprint) -> Prepared:
    """Check and draw what the profile reads, then choose its videos and digest it all.

    Raises:
        MissingAssetsError: something has to be got by hand; nothing was run.
        BenchError: the results folder cannot be written or the disk is full.
    """
    profile = suite.profile
    check_ready(suite, store, find_missing(profile))
    data = training_data(profile, store, write=True)
    assert data is not None
    prompts, videos = ask_for_videos(profile.vbench, store)
    write_images(videos)
    return prepared(profile, data, prompts, videos, fingerprint)


def prepared(
    profile: VBenchProfile,
    data: TrainingData,
    prompts: tuple[Prompt, ...],
    videos: tuple[VideoRequest, ...],
    fingerprint: Fingerprint,
) -> Prepared:
    """Choose the judges and digest everything, all of it there."""
    judges, reasons = choose_judges(
        profile.vbench, default_environment(), min(profile.sample.height, profile.sample.width)
    )
    versions = deciding_versions(fingerprint.versions)
    training = training_inputs(profile, data.digest, versions)
    inputs = PromptedInputs(
        teacher=training.teacher,
        plan=training.plan,
        train_clips=training.train_clips,
        versions=versions,
        machine_id=fingerprint.machine_id,
        asked=asked_digest(videos),
        judges={name: judge.digest for name, judge in judges.items()},
        reasons=reasons,
    )
    clips = ChosenVideos(data.source, videos, prompts, judges, reasons)
    jobs = jobs_of_videos(profile, inputs, len(videos))
    return Prepared(inputs, clips, str(model_folder(profile.teacher)), tuple(jobs))


def jobs_of_videos(profile: VBenchProfile, inputs: PromptedInputs, count: int) -> list[Job]:
    """All jobs of a profile, on `count` videos a model, in an order in which each comes after what it needs."""
    drawn = profile.vbench.prompts == "embedded"
    name = profile.vbench.identity if drawn else f"{profile.vbench.mode}-{profile.vbench.ratio}"
    return plan_judging(profile, inputs, name, count, drawn=drawn)


def training_inputs(profile: VBenchProfile, train_clips: str, versions: dict[str, str]) -> TrainingInputs:
    """Digests of what a distillation reads, the clips apart, whose digest is given."""
    family = "svd"
    if profile.channels is not None:
        from vdmini.models.loading import load_model

        # A rule for channels is for one family, which the weights need not tell.
        family = load_model(str(model_folder(profile.teacher)), device="meta").family
    plan = pruning_text(profile.plan, profile.channels, family)
    return TrainingInputs(teacher_digest(profile.teacher), plan, train_clips, versions)


def ask_for_videos(vbench: VBenchSpec, store: Store) -> tuple[tuple[Prompt, ...], tuple[VideoRequest, ...]]:
    """The official prompts, none in the drawn world, and the videos that every model is asked for.

    Raises:
        MissingAssetsError: the official prompts are not there.
    """
    if vbench.prompts == "embedded":
        return (), embedded_videos(vbench, images_folder(store.root / "data"))
    prompts = find_prompts(vbench.mode, None, None, vbench.ratio, default_environment())
    scored = tuple(name for name in vbench.asked_dimensions if counts(name, vbench)) or (FILTERED,)
    filtered = vbench.static_filter and vbench.mode == "t2v"
    return prompts, tuple(request_videos(prompts, scored, vbench.seed, filtered=filtered))


def asked_digest(videos: tuple[VideoRequest, ...]) -> str:
    """The digest of what models are asked for: names, prompts, seeds, and the bytes of images."""
    images: dict[Path, str] = {}
    for video in videos:
        if video.image is not None and video.image not in images:
            images[video.image] = sha256_of(video.image)
    return key_of([[video.name, video.prompt, video.seed, video.image and images[video.image]] for video in videos])


def find_missing(profile: VBenchProfile, *, measured: bool = True) -> list[Missing]:
    """Everything the profile needs that this program cannot fetch by itself, to train alone unless `measured`."""
    missing = [*missing_teacher(profile), *_missing_data(profile)]
    if not measured:
        return missing
    if profile.vbench.prompts == "official":
        return missing + _missing_official(profile.vbench, default_environment())
    if not classifier_digest():
        from vdmini_bench.metrics.scene_classifier import SHIPPED

        missing.append(
            Missing(
                "scene classifier", f"what scores clips of the drawn world; not part of this installation ({SHIPPED})",
                "under 5 MB", "that of this package", "this package", "install a build that has it",
            )
        )  # fmt: skip
    return missing


def _missing_data(profile: VBenchProfile) -> list[Missing]:
    dataset = profile.dataset
    if isinstance(dataset, DatasetSpec) and dataset.kind == "ucf101" and asset_path("ucf101") is None:
        return [missing_asset("ucf101")]
    if isinstance(dataset, CaptionedFolderSpec) and not Path(dataset.path).is_dir():
        return [
            Missing(
                "training clips", f"a folder of videos with captions, {dataset.path} is none", "yours", "yours", "you",
                "--set dataset.path=FOLDER   (captions.csv, .jsonl or .parquet in it)",
            )
        ]  # fmt: skip
    return []


def _missing_official(vbench: VBenchSpec, environment: Environment) -> list[Missing]:
    """What the dimensions asked for lack, each thing once; of what our own code is to score, only its weights."""
    native = {ready.dimension: ready for ready in examine_native()} if vbench.code == "native" else {}
    needed: dict[str, list[str]] = {}
    commands = {}
    if vbench.mode == "t2v" and environment.record() is None:
        # The prompts are inside the package.
        needed[ENVIRONMENT], commands[ENVIRONMENT] = ["the prompts"], COMMAND
    for official in examine_dimensions(environment):
        ready = native.get(official.dimension, official)
        if ready.dimension in vbench.asked_dimensions and counts(ready.dimension, vbench):
            for what, command in zip(ready.missing, ready.next, strict=True):
                # Only the filter reads this dimension's weights.
                if ready.dimension != FILTERED or vbench.static_filter or what == ENVIRONMENT:
                    needed.setdefault(what, []).append(ready.dimension)
                    commands[what] = command
    return [
        Missing(what, f"for {', '.join(names)}", "see docs/vbench.md", *_licence_and_source(what), commands[what])
        for what, names in needed.items()
    ]


def _licence_and_source(what: str) -> tuple[str, str]:
    if "VBench-I2V" in what:
        return ASSETS["vbench-i2v"].licence, ASSETS["vbench-i2v"].source
    # What is no file of the cache is a package, or the environment of all of them.
    packages = ("a package registry", "Apache-2.0 (vbench); of others see the package's page there")
    source, licence = PROJECTS.get(what.partition("/")[0], packages)
    return licence, source
