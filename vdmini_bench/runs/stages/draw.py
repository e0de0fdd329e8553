"""Draw what videos of embedded prompts should show: the `real` row, as good as any model can get."""

from __future__ import annotations

from pathlib import Path

from vdmini_bench.data.video import write_whole
from vdmini_bench.suites.vbench import VBenchContext
from vdmini_bench.suites.vbench_videos import drawn_frames
from vdmini_bench.system.progress import progress


def run_stage(context: VBenchContext, subject: str, folder: Path) -> None:
    """Write a drawn clip for every video that has one of its own, encoded as the generated ones are."""
    videos = context.videos_of(subject)
    with progress(f"draw {subject}", len(videos)) as advance:
        for video, frames in zip(videos, drawn_frames(context.vbench, videos), strict=True):
            write_whole(context.clip_path(subject, video.name), frames, context.suite.profile.frames_per_second)
            advance()
