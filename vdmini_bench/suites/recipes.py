"""The recipe that a suite's profile gives a distillation."""

from __future__ import annotations

from vdmini.conditioning.base import EncodeSettings
from vdmini.latents import ClipSource
from vdmini_bench.config.suite import CommonProfile, Suite
from vdmini_bench.data.captioned import CaptionedVideos
from vdmini_bench.data.ucf101 import VideoFile
from vdmini_bench.distill.recipe import Recipe
from vdmini_bench.suites.training_clips import DatasetClips


def recipe_of_suite(
    suite: Suite, train: tuple[VideoFile, ...], teacher: str, teacher_sha256: str, pruning: str
) -> Recipe:
    """The recipe of a suite's profile, on the clips that it chose."""
    profile, sample = suite.profile, suite.profile.sample
    source = DatasetClips(train, profile.frames, profile.frames_per_second, sample.width, sample.height)
    return recipe_of_profile(profile, source, teacher, teacher_sha256, pruning)


def recipe_of_profile(
    profile: CommonProfile, source: ClipSource, teacher: str, teacher_sha256: str, pruning: str
) -> Recipe:
    """The recipe of a profile of any kind, on the clips that `source` gives."""
    sample = profile.sample
    return Recipe(
        teacher=teacher,
        teacher_sha256=teacher_sha256,
        pruning=pruning,
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
