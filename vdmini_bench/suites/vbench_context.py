"""What the stages of a VBench suite work with: its videos and prompts instead of a data set's clips."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from vdmini_bench.config.vbench import VBenchSpec, VBenchSuite
from vdmini_bench.data.picture import UnreadablePictureError, read_picture
from vdmini_bench.errors import IncompleteError, UnreadableVideoError
from vdmini_bench.suites.context import CommonBench
from vdmini_bench.suites.jobs import GENERATED
from vdmini_bench.suites.vbench import ChosenVideos
from vdmini_bench.suites.vbench_videos import clip_requests, real_videos
from vdmini_bench.vbench.prompts import VideoRequest

if TYPE_CHECKING:
    from vdmini.requests import ClipRequest
    from vdmini_bench.distill.recipe import Recipe

REAL = "real"


@dataclass(frozen=True)
class VBenchBench(CommonBench):
    """The surroundings of a suite that is scored in VBench's dimensions; its videos have names as VBench reads them."""

    suite: VBenchSuite
    clips: ChosenVideos

    suffix: ClassVar[str] = ".mp4"

    @property
    def vbench(self) -> VBenchSpec:
        """What is asked for and scored."""
        return self.suite.profile.vbench

    @property
    def recipe(self) -> Recipe:
        """What encoding, pruning and distilling work from."""
        from vdmini_bench.suites.recipes import recipe_of_profile

        return recipe_of_profile(self.suite.profile, self.clips.train, self.teacher, self.teacher_digest, self.plan)

    @property
    def protocol_name(self) -> str:
        """That of the embedded prompts, or the official one."""
        return self.vbench.identity if self.vbench.prompts == "embedded" else f"vbench-{self.vbench.mode}"

    @property
    def clip_names(self) -> Sequence[str]:
        """The names of all videos, without suffix."""
        return [video.name for video in self.clips.videos]

    @property
    def prompts(self) -> Sequence[str]:
        """Those of all videos."""
        return [video.prompt for video in self.clips.videos]

    def requests(self, places: Sequence[int]) -> list[ClipRequest]:
        """Prompts with their seeds, and the images that are animated."""
        sample = self.suite.profile.sample
        return clip_requests([self.clips.videos[place] for place in places], sample.height, sample.width)

    def check_requests(self, places: Sequence[int]) -> None:
        """Read every image, and keep none."""
        images = dict.fromkeys(self.clips.videos[place].image for place in places)
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

    def video_folder(self, row: str) -> Path:
        """The folder with a row's videos."""
        return self.folder(f"draw {REAL}" if row == REAL else f"sample {row}") / "clips"

    def video_path(self, row: str, video: VideoRequest) -> Path:
        """The file of a row's video."""
        return self.video_folder(row) / f"{video.name}{self.suffix}"

    def examples(self, count: int) -> dict[str, list[Path]]:
        """One video of each of the first prompts, of every row."""
        shown = [video for video in self.clips.videos if video.index == 0][:count]
        rows = [REAL, *GENERATED] if f"draw {REAL}" in self.jobs else [*GENERATED]
        return {row: [self.video_path(row, video) for video in shown] for row in rows}
