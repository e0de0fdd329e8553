"""Sample one model's clips, a file each; what a clip is asked for, its seed too, is the same for every model."""

from __future__ import annotations

from pathlib import Path

from vdmini.sample import sample_clips
from vdmini_bench.data.requests import warn_of_cut_prompts
from vdmini_bench.data.video import write_whole
from vdmini_bench.suites.context import SuiteContext
from vdmini_bench.system.launch import Share, share_out


def run_stage(context: SuiteContext, subject: str, folder: Path) -> None:
    """Write a video for every clip that models are asked for, in batches; a batch that is whole is not sampled again.

    The processes of a launch each take a share of the batches, which are the same however many there are.
    """
    share_out(_sample_share, context, subject)


def _sample_share(share: Share, context: SuiteContext, subject: str) -> None:
    settings, size = context.sample_settings(subject), context.batch_size(subject)
    paths = [context.clip_path(subject, name) for name in context.clip_names]
    groups = share.of([range(start, min(start + size, len(paths))) for start in range(0, len(paths), size)])
    missing = [group for group in groups if not all(paths[place].exists() for place in group)]
    # All of them before hours of sampling, and none kept.
    context.check_requests([place for group in missing for place in group])
    ready = context.load(subject) if missing else None
    pipeline = None if ready is None else ready.model.pipeline
    if pipeline is not None and share.is_main and subject == context.suite.profile.baseline:
        # All others read the same prompts with the same encoders.
        warn_of_cut_prompts(pipeline, context.prompts)
    with share.progress(f"sample {subject}", len(missing)) as advance:
        for group in missing:
            assert ready is not None
            assert pipeline is not None
            # What a cache kept of other clips, also of one that was interrupted.
            ready.acceleration.reset()
            clips = sample_clips(pipeline, context.requests(group), settings)
            for place, clip in zip(group, clips, strict=True):
                write_whole(paths[place], clip, settings.frames_per_second)
            advance()
