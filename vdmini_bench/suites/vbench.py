"""Suites that are scored in VBench's dimensions: models sample videos of prompts, or animate images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from vdmini.latents import ClipSource
from vdmini_bench.config.vbench import VBenchProfile, VBenchSpec, VBenchSuite
from vdmini_bench.config.vbench_dimensions import FILTERED
from vdmini_bench.data.picture import UnreadablePictureError, read_picture
from vdmini_bench.errors import IncompleteError, SuiteError, UnreadableVideoError
from vdmini_bench.models.source import NOT_THERE
from vdmini_bench.results.store import Store
from vdmini_bench.results.versions import deciding_versions
from vdmini_bench.suites.context import SuiteContext
from vdmini_bench.suites.found_models import find_models
from vdmini_bench.suites.job_graph import JobGraph
from vdmini_bench.suites.jobs import PromptedInputs, plan_judging, plan_training
from vdmini_bench.suites.missing import Missing, missing_models
from vdmini_bench.suites.training_clips import DatasetClips
from vdmini_bench.suites.vbench_missing import (
    missing_classifier,
    missing_files,
    missing_official,
    missing_training_clips,
)
from vdmini_bench.suites.vbench_scorers import Judge, choose_judges, classifier_digest, counts, filters
from vdmini_bench.suites.vbench_training_clips import TrainingData, training_data
from vdmini_bench.suites.vbench_videos import (
    check_images,
    clip_requests,
    embedded_videos,
    images_folder,
    listed_videos,
    prompts_of_part,
    real_videos,
    write_images,
)
from vdmini_bench.system.files import key_of, sha256_of
from vdmini_bench.system.fingerprint import take_fingerprint
from vdmini_bench.vbench.environment import default_environment
from vdmini_bench.vbench.prompts import SAMPLES, Prompt, VideoRequest, find_prompts, request_videos, some_prompts

if TYPE_CHECKING:
    from vdmini.requests import ClipRequest

REAL = "real"

# Of one model, in all dimensions: 944 prompts five times, 75 of these 25 times for the filter; 1,118 with images.
OFFICIAL_VIDEOS = {"t2v": 944 * 5 + 75 * 20, "i2v": 1118 * 5}


@dataclass(frozen=True)
class ChosenVideos:
    """What a run trains on, the videos that it asks models for, and what scores them.

    `prompts` are the official ones, none in the drawn world. `reasons` say of each dimension without a judge why.
    """

    train: ClipSource
    videos: tuple[VideoRequest, ...] = ()
    prompts: tuple[Prompt, ...] = ()
    judges: dict[str, Judge] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class VBench:
    """The kind of suite, as `SuiteKind` says it."""

    suite: VBenchSuite

    def missing(self, *, measured: bool = True) -> list[Missing]:
        """Teacher, training clips, and what the dimensions asked for lack."""
        profile = self.suite.profile
        missing = [*missing_models(profile), *missing_training_clips(profile)]
        if not measured:
            return missing
        missing += missing_files({"vbench.only": profile.vbench.only, "sample.latents": profile.sample.latents})
        if profile.vbench.prompts == "official":
            return missing + missing_official(profile.vbench, default_environment())
        drawn = profile.vbench.prompts == "embedded"
        return missing + ([missing_classifier()] if drawn and not classifier_digest() else [])

    def first(self, store: Store, *, measured: bool = True) -> list[str]:
        """Training clips and first frames that are drawn."""
        if self.missing(measured=measured):
            return []
        profile = self.suite.profile
        videos = ask_for_videos(profile.vbench, store)[1] if measured and profile.vbench.prompts == "embedded" else ()
        drawn = all(video.image is None or video.image.is_file() for video in videos)
        there = drawn and training_data(profile, store, write=False) is not None
        return [] if there else [f"draw {profile.train_clips} training clips"]

    def prepare(self, store: Store, *, measured: bool = True) -> None:
        """Draw them."""
        training_data(self.suite.profile, store, write=True)
        if measured and self.suite.profile.vbench.prompts == "embedded":
            write_images(self.suite.profile.vbench, ask_for_videos(self.suite.profile.vbench, store)[1])

    def open(self, store: Store, *, measured: bool = True, remember: bool = True, machine: str = "") -> VBenchContext:
        """Choose the videos and what scores them, and digest everything."""
        profile, fingerprint = self.suite.profile, take_fingerprint()
        missing = self.missing(measured=measured)
        data = None if missing else training_data(profile, store, write=False, remember=remember)
        found = find_models(profile)
        data = data or TrainingData(DatasetClips((), profile.frames, profile.frames_per_second, 0, 0), NOT_THERE)
        clips = ChosenVideos(data.source)
        if measured and not missing:
            prompts, videos = ask_for_videos(profile.vbench, store)
            if prompts:
                check_images(videos, profile.vbench.ratio)
            side = min(profile.sample.height, profile.sample.width)
            judges, reasons = choose_judges(profile.vbench, default_environment(), side)
            clips = ChosenVideos(data.source, videos, prompts, judges, reasons)
        inputs = PromptedInputs(
            teacher=found.digest,
            plans=found.plans,
            sources=found.sources,
            perceptual=found.perceptual,
            train_clips=data.digest,
            versions=deciding_versions(fingerprint.versions),
            machine_id=machine or fingerprint.machine_id,
            asked=asked_digest(clips.videos, profile.sample.latents),
            judges={name: judge.digest for name, judge in clips.judges.items()},
            reasons=clips.reasons,
        )
        if measured:
            graph = jobs_of_videos(profile, inputs, found.teacher, len(clips.videos))
        else:
            graph = plan_training(profile, inputs, found.teacher)
        return VBenchContext(store, fingerprint, found.teacher, found.prunings, inputs, graph, self.suite, clips)


def jobs_of_videos(profile: VBenchProfile, inputs: PromptedInputs, teacher: str, count: int) -> JobGraph:
    """All jobs of a profile, on `count` videos a model, in an order in which each comes after what it needs."""
    vbench, drawn = profile.vbench, profile.vbench.prompts == "embedded"
    name = f"{vbench.mode}-{vbench.ratio}"
    if not vbench.is_standard:
        name = vbench.identity(count, inputs.asked)
    return plan_judging(profile, inputs, teacher, name, count, drawn=drawn, floor=vbench.floor)


def ask_for_videos(vbench: VBenchSpec, store: Store) -> tuple[tuple[Prompt, ...], tuple[VideoRequest, ...]]:
    """The official prompts, none where others are asked for, and the videos that every model is asked for.

    Raises:
        MissingAssetsError: the official prompts are not there.
        SuiteError: a file of prompts cannot be read, lists as official what is not, or has too few for the part.
    """
    prompts, videos = _all_videos(vbench, store)
    if vbench.part is None:
        return prompts, videos
    kept = prompts_of_part((video.prompt for video in videos), vbench.part)
    if not kept:
        raise SuiteError(f"vbench.part: there are too few prompts for part {vbench.part}")
    return (
        tuple(prompt for prompt in prompts if prompt.text in kept),
        tuple(video for video in videos if video.prompt in kept),
    )


def _all_videos(vbench: VBenchSpec, store: Store) -> tuple[tuple[Prompt, ...], tuple[VideoRequest, ...]]:
    if vbench.file is not None:
        return (), listed_videos(vbench, vbench.file)
    if vbench.prompts == "embedded":
        return (), embedded_videos(vbench, images_folder(store.root / "data"))
    prompts = find_prompts(vbench.mode, None, None, vbench.ratio, default_environment())
    if vbench.only is not None:
        prompts = some_prompts(prompts, Path(vbench.only))
    scored = tuple(name for name in vbench.asked_dimensions if counts(name, vbench)) or (FILTERED,)
    empty = [name for name in scored if not any(name in prompt.dimensions for prompt in prompts)]
    if vbench.only is not None and empty:
        raise SuiteError(f"{vbench.only} lists no prompt of {', '.join(empty)}: leave that out of vbench.dimensions")
    samples = vbench.samples_per_prompt or SAMPLES
    filtered = filters(FILTERED, vbench)
    return prompts, tuple(request_videos(prompts, scored, vbench.seed, filtered=filtered, samples=samples))


def asked_digest(videos: tuple[VideoRequest, ...], latents: str | None = None) -> str:
    """The digest of what models are asked for: names, prompts, seeds, and the bytes of images and of `latents`."""
    images = {video.image for video in videos if video.image is not None}
    digests = {image: sha256_of(image) if image.is_file() else NOT_THERE for image in images}
    listed = [[video.name, video.prompt, video.seed, video.image and digests[video.image]] for video in videos]
    start = [] if latents is None or not Path(latents).is_file() else [sha256_of(Path(latents))]
    return key_of([*listed, *start])


@dataclass(frozen=True)
class VBenchContext(SuiteContext):
    """The surroundings of a suite that is scored in VBench's dimensions; its videos have names as VBench reads them."""

    suite: VBenchSuite
    clips: ChosenVideos

    suffix: ClassVar[str] = ".mp4"

    @property
    def vbench(self) -> VBenchSpec:
        """What is asked for and scored."""
        return self.suite.profile.vbench

    @property
    def training_clips(self) -> ClipSource:
        """Those of the profile's data set."""
        return self.clips.train

    @property
    def protocol_name(self) -> str:
        """That of the embedded or listed prompts, or the official one."""
        if self.vbench.is_standard:
            return f"vbench-{self.vbench.mode}"
        assert isinstance(self.inputs, PromptedInputs)
        return self.vbench.identity(len(self.clips.videos), self.inputs.asked)

    @property
    def clip_names(self) -> Sequence[str]:
        """The names of all videos, without suffix."""
        return [video.name for video in self.clips.videos]

    @property
    def clips_per_model(self) -> int:
        """As many as there are videos; where the official prompts are not here, as all dimensions ask for."""
        if self.vbench.prompts == "official" and not self.clips.videos:
            return OFFICIAL_VIDEOS[self.vbench.mode]
        return len(self.clips.videos)

    @property
    def prompts(self) -> Sequence[str]:
        """Those of all videos."""
        return [video.prompt for video in self.clips.videos]

    def requests(self, indices: Sequence[int]) -> list[ClipRequest]:
        """Prompts with their seeds, and the images that are animated."""
        sample = self.suite.profile.sample
        return clip_requests([self.clips.videos[index] for index in indices], sample.height, sample.width)

    def check_requests(self, indices: Sequence[int]) -> None:
        """Read every image, and keep none."""
        images = dict.fromkeys(self.clips.videos[index].image for index in indices)
        problems = []
        for image in filter(None, images):
            try:
                read_picture(image)
            except UnreadablePictureError as problem:
                problems.append(UnreadableVideoError(image, problem.reason))
        if problems:
            raise IncompleteError(problems)

    def videos_of(self, row: str) -> tuple[VideoRequest, ...]:
        """The videos that a row of the table has."""
        return real_videos(self.vbench, self.clips.videos) if row == REAL else self.clips.videos

    def clip_path(self, subject: str, name: str) -> Path:
        """Also where a drawn clip of that name is kept."""
        job = f"draw {REAL}" if subject == REAL else self.graph.sampled[subject]
        return self.folder(job) / "clips" / f"{name}{self.suffix}"

    def examples(self, count: int) -> dict[str, list[Path]]:
        """One video of each of the first prompts, of every row."""
        shown = [video for video in self.clips.videos if video.index == 0][:count]
        rows = [REAL] * (f"draw {REAL}" in self.jobs) + [*self.suite.profile.models]
        return {row: [self.clip_path(row, video.name) for video in shown] for row in rows}
