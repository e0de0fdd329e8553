"""Sample one model's clips, a file each; a clip's seed is its position, the same for every model."""

from __future__ import annotations

from pathlib import Path

from vdmini.sample import ClipRequest, batches, sample_clips
from vdmini_bench.clips import ClipReader
from vdmini_bench.datasets.video import write_video
from vdmini_bench.progress import progress
from vdmini_bench.workbench import Workbench


def run_stage(bench: Workbench, subject: str, folder: Path) -> None:
    """Write `clips/NNNNN.mkv` for every condition clip, in batches; a batch that is whole is not sampled again."""
    settings = bench.sample_settings
    videos = bench.clips.condition
    reader = ClipReader(
        [video.path for video in videos], 1, settings.frames_per_second, settings.width, settings.height
    )
    images = [clip[0] for clip in reader]
    reader.check()
    requests = [ClipRequest(f"{seed:05d}", seed, image) for seed, image in enumerate(images)]
    pipeline = bench.load_pipeline(subject)
    groups = list(batches(requests, bench.suite.profile.sample.batch_size))
    with progress(f"sample {subject}", len(groups)) as advance:
        for group in groups:
            paths = [clip_path(folder, request.name) for request in group]
            if not all(path.exists() for path in paths):
                for path, clip in zip(paths, sample_clips(pipeline, group, settings), strict=True):
                    partial = path.with_name(f"partial-{path.name}")
                    write_video(partial, clip, settings.frames_per_second)
                    partial.replace(path)
            advance()


def clip_path(folder: Path, name: str) -> Path:
    """Where a sample job keeps the clip of that name."""
    return folder / "clips" / f"{name}.mkv"
