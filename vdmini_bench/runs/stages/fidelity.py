"""How near a model's clips are to the baseline's of the same seeds and prompts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vdmini_bench.data.clip_reader import ClipReader
from vdmini_bench.errors import IncompleteError, UnreadableVideoError
from vdmini_bench.metrics.fidelity import fidelity_notes, fidelity_scores
from vdmini_bench.suites.context import SuiteContext, write_scores


def run_stage(context: SuiteContext, subject: str, folder: Path) -> None:
    """Write PSNR, SSIM and the distances of content and motion, over all clips."""
    protocol = f"{context.protocol_name}/to {context.suite.profile.baseline}"
    scores = fidelity_scores(subject, protocol, _pairs(context, subject))
    write_scores(folder, context, scores, fidelity_notes(scores))


def _pairs(context: SuiteContext, subject: str) -> Iterator[tuple[str, NDArray[np.uint8], NDArray[np.uint8]]]:
    """Each clip's name, the baseline's clip and the model's, T H W C uint8."""
    reader, models = ClipReader((), context.suite.profile.frames, None), (context.baseline_of(subject), subject)
    for name in context.clip_names:
        baseline, clip = (reader.read(context.clip_path(model, name)) for model in models)
        if isinstance(baseline, UnreadableVideoError) or isinstance(clip, UnreadableVideoError):
            raise IncompleteError([each for each in (baseline, clip) if isinstance(each, UnreadableVideoError)])
        yield name, baseline, clip
