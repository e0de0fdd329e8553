"""The clips that a distillation trains on: of a suite's data set, one's own, or drawn by the teacher."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from vdmini.conditioning.base import TrainingClip
from vdmini.latents import ClipSource, UnreadableClipError
from vdmini.models.registry import VideoModel
from vdmini.requests import ClipRequest, SampleSettings
from vdmini_bench.config.distillation import ClipSpec, DistillConfig, FolderData, GeneratedData, SamplingSpec
from vdmini_bench.config.sampling import SamplerSpec, sampled_by
from vdmini_bench.data.captioned import ClipFormat, read_captioned
from vdmini_bench.data.preprocessing import resize_clip
from vdmini_bench.data.requests import choose_settings, image_requests, parse_seeds, prompt_requests
from vdmini_bench.data.ucf101 import VideoFile
from vdmini_bench.data.video import read_frames
from vdmini_bench.data.webdataset import read_webdataset
from vdmini_bench.distill.recipe import Preview
from vdmini_bench.distill.teacher_clips import generate_clips
from vdmini_bench.errors import UnreadableVideoError
from vdmini_bench.results.store import Store
from vdmini_bench.suites.datasets import digest_videos
from vdmini_bench.system.files import key_of


@dataclass(frozen=True)
class DatasetClips:
    """A data set's videos as a source of training clips, read at a rate; a clip's seed is its position.

    `captioned`: a clip's class, as words, is what it shows.
    """

    videos: tuple[VideoFile, ...]
    frames: int
    frames_per_second: float
    width: int
    height: int
    captioned: bool = False

    @property
    def names(self) -> list[str]:
        return [video.relative for video in self.videos]

    def clip(self, index: int) -> TrainingClip:
        """Read a clip; raises UnreadableClipError."""
        video = self.videos[index]
        try:
            frames = read_frames(video.path, self.frames, self.frames_per_second)
        except UnreadableVideoError as error:
            raise UnreadableClipError(video.relative, str(error)) from error
        caption = video.words if self.captioned else ""
        return TrainingClip(video.relative, resize_clip(frames, self.width, self.height), caption, seed=index)


@dataclass(frozen=True)
class ConfiguredClips:
    """The training clips that a configuration asks for: what gives them, what each shows, and a digest of it all."""

    clips: Callable[[VideoModel, Path], ClipSource]
    prompts: tuple[str, ...]
    digest: str


def configured_clips(configuration: DistillConfig, store: Store, remember: bool) -> ConfiguredClips:
    """Find the clips of a configuration; `remember` keeps the hashes of its files in the store.

    Raises:
        SuiteError: they are missing, or what lists them is wrong.
    """
    data, clip = configuration.data, configuration.clip
    if isinstance(data, GeneratedData):
        return _generated(configuration, data)
    format = ClipFormat(clip.frames, clip.frames_per_second, clip.width, clip.height)
    if isinstance(data, FolderData):
        root = Path(data.path)
        source = read_captioned(
            root, None if data.captions is None else Path(data.captions), format, data.skip_unreadable
        )
        files = tuple(VideoFile("", video.name, video.path) for video in source.videos)
    else:
        root = Path(data.shards).parent
        source = read_webdataset(data.shards, format, data.skip_unreadable)
        shards = dict.fromkeys(video.path for video in source.videos)
        files = tuple(VideoFile("", f"{place:05d} {shard.name}", shard) for place, shard in enumerate(shards))
    listed = [(video.name, video.caption) for video in source.videos]
    digest = key_of([data.kind, listed, digest_videos(files, store, root, "clips", remember)])
    return ConfiguredClips(partial(_given, source), tuple(video.caption for video in source.videos), digest)


def sampling_of(
    teacher: str, clip: ClipSpec, sampling: SamplingSpec, skip_unreadable: bool = False
) -> tuple[list[ClipRequest], SampleSettings]:
    """What to sample, and how; raises SuiteError where the prompts or images cannot be read."""
    seeds = parse_seeds(str(sampling.seeds))
    if sampling.prompts is not None:
        requests = prompt_requests(Path(sampling.prompts), seeds)
    else:
        assert sampling.images is not None
        requests = image_requests(Path(sampling.images), seeds, skip_unreadable)
    asked = sampling.model_dump(include={*SamplerSpec.model_fields}, exclude={"preset"}) | clip.model_dump()
    return requests, choose_settings(teacher, asked, sampled_by(sampling.preset))


def preview_of(configuration: DistillConfig) -> Preview | None:
    """What to draw while training; raises SuiteError as `sampling_of` does."""
    if configuration.preview is None:
        return None
    return Preview(*sampling_of(configuration.teacher, configuration.clip, configuration.preview))


def _generated(configuration: DistillConfig, data: GeneratedData) -> ConfiguredClips:
    requests, settings = sampling_of(configuration.teacher, configuration.clip, data, data.skip_unreadable)
    drawn_from = [(each.name, each.seed, each.prompt, each.image_sha256) for each in requests]
    digest = key_of([data.kind, drawn_from, settings.to_json(), data.batch_size])

    clips = partial(_sampled, requests, settings, data.batch_size)
    return ConfiguredClips(clips, tuple(each.prompt or "" for each in requests), digest)


def _sampled(
    requests: Sequence[ClipRequest], settings: SampleSettings, batch_size: int, model: VideoModel, folder: Path
) -> ClipSource:
    return generate_clips(model, requests, settings, folder, batch_size)


def _given(source: ClipSource, model: VideoModel, folder: Path) -> ClipSource:
    """Clips that are there already; a function by name, as the other, so that it can be sent to a process."""
    return source
