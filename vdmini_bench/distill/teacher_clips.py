"""Training clips that the teacher draws itself: distilling without data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from vdmini.models.registry import VideoModel
from vdmini.requests import ClipRequest, SampleSettings
from vdmini_bench.data.captioned import CaptionedVideo, CaptionedVideos, ClipFormat
from vdmini_bench.errors import SuiteError
from vdmini_bench.models.sampling import sample_into


def generate_clips(
    model: VideoModel, requests: Sequence[ClipRequest], settings: SampleSettings, folder: Path, batch_size: int
) -> CaptionedVideos:
    """The teacher's own clips with the prompts they are drawn from, as a source of training clips.

    They are kept in `folder` without loss, and not drawn again unless they were made from something else.

    Raises:
        SuiteError: no requests, or two of one name.
        BenchError: the source holds no pipeline, or the pipeline cannot use the requests.
    """
    if not requests:
        raise SuiteError("no clips to draw: give at least one prompt or image")
    name, times = Counter(request.name for request in requests).most_common(1)[0]
    if times > 1:
        raise SuiteError(f"{times} clips are named {name!r}: give each a name of its own")
    sample_into(model, requests, settings, folder, batch_size, suffix=".mkv")
    videos = [CaptionedVideo(each.name, folder / f"{each.name}.mkv", each.prompt or "") for each in requests]
    # Every frame that was drawn, at the size it was drawn.
    return CaptionedVideos(tuple(videos), ClipFormat(settings.frames, None, settings.width, settings.height))
