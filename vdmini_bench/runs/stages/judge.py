"""Score one row of the table in one dimension of VBench, or in all those that the drawn world's classifier answers."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vdmini_bench.config.vbench_dimensions import FILTERED
from vdmini_bench.data.captions import parse_caption
from vdmini_bench.data.clip_reader import ClipReader
from vdmini_bench.data.requests import DRAWN_INDEX
from vdmini_bench.data.synthetic import draw_clip
from vdmini_bench.errors import BenchError
from vdmini_bench.metrics import semantic
from vdmini_bench.metrics.scene_classifier import ShippedClassifier, load_classifier, read_clips
from vdmini_bench.results.score import Score
from vdmini_bench.runs.stages.total import VERSION
from vdmini_bench.suites.context import write_scores
from vdmini_bench.suites.vbench import VBenchContext
from vdmini_bench.suites.vbench_scorers import filters, official_mode
from vdmini_bench.suites.vbench_videos import drawn_origins
from vdmini_bench.vbench.environment import default_environment, packages_digest
from vdmini_bench.vbench.native.catalogue import NATIVE_VERSION
from vdmini_bench.vbench.prompts import SAMPLES
from vdmini_bench.vbench.scoring import Scoring, score_videos

# Clips that no suite asks for.
CALIBRATION_INDEX, CALIBRATION_CLIPS = DRAWN_INDEX + 1000, 100
# A video's prompt and what it scored.
Marks = Sequence[tuple[str, float]]


def run_stage(context: VBenchContext, subject: str, folder: Path) -> None:
    """Write the scores of `subject`, a row and a judge: `teacher temporal_flickering`."""
    row, _, name = subject.rpartition(" ")
    kind = context.clips.judges[name].kind
    if kind == "classifier":
        found = _drawn_world(context, row)
    else:
        found = [_dimension(context, row, name, folder, native=kind == "native")]
    write_scores(folder, context, [score for score, _ in found], {score.metric: note for score, note in found})


def score_of_marks(
    model: str, metric: str, version: str, protocol: str, marks: Marks, expected: int, value: float | None = None
) -> Score:
    """A score over videos, their mean unless `value` is given, with the standard error of the prompts' means.

    Samples of one prompt are alike, so prompts count as independent and videos do not. The prompts' means are the
    score's blocks where no video is left out, so that models are compared prompt by prompt.
    """
    by_prompt: dict[str, list[float]] = {}
    for prompt, mark in marks:
        by_prompt.setdefault(prompt, []).append(mark)
    means = tuple(statistics.fmean(group) for group in by_prompt.values())
    error = statistics.stdev(means) / math.sqrt(len(means)) if len(means) > 1 else None
    mean = statistics.fmean(mark for _, mark in marks) if value is None else value
    blocks = means if len(marks) == expected else ()
    return Score(model, metric, version, protocol, mean, "", "higher", error, len(marks), expected, "ok", blocks)


def _dimension(context: VBenchContext, row: str, dimension: str, folder: Path, *, native: bool) -> tuple[Score, str]:
    """A row's score in a dimension of VBench, by the official package or by our own code."""
    environment = default_environment()
    mode = official_mode(dimension, context.vbench)
    videos = context.videos_of(row)
    scoring = Scoring(
        folder=context.clip_path(row, videos[0].name).parent,
        output=folder,
        mode=mode,
        dimensions=(dimension,),
        command=environment.command,
        packages="" if native else packages_digest(environment.require()),
        prompts=context.clips.prompts if mode != "custom" else (),
        texts={video.name: video.prompt for video in videos} if mode == "custom" else {},
        images={video.prompt: video.image for video in videos if video.image is not None} if mode == "custom" else {},
        ratio=context.vbench.ratio,
        filtered=filters(dimension, context.vbench),
        native=native,
        samples=context.vbench.samples_per_prompt or SAMPLES,
    )
    (outcome,) = score_videos(scoring).outcomes
    if outcome.result is None:
        raise BenchError(outcome.error)
    result = outcome.result
    # In one order for all models, whatever that of the official results.
    texts = {video.name: video.prompt for video in videos}
    marks = [(texts[Path(file).stem], result.videos[file]) for file in sorted(result.videos)]
    protocol = scoring.protocol if context.vbench.is_standard else context.protocol_name
    expected = result.expected
    if scoring.filters:
        # Where the filter leaves a prompt fewer videos, other models may have others.
        expected = SAMPLES * sum(dimension in prompt.dimensions for prompt in context.clips.prompts)
    version = NATIVE_VERSION if native else VERSION
    score = score_of_marks(row, f"vbench_{dimension}", version, protocol, marks, expected, result.score)
    return score, _note(dimension, native=native, prompts=context.vbench.prompts, filtered=scoring.filters)


def _note(dimension: str, *, native: bool, prompts: str, filtered: bool) -> str:
    code = "native code on the official weights" if native else "official code"
    if native and dimension == FILTERED:
        code = "native code of the official formula"
        code += "" if filtered else ", of all videos, those with motion too"
    others = {"official": "", "embedded": ", on prompts of the drawn world"}.get(prompts, f", on {Path(prompts).name}")
    return f"{code}{others}; ± over prompts"


def _drawn_world(context: VBenchContext, row: str) -> list[tuple[Score, str]]:
    """The share of videos that show what their captions say, or still what their first frames did, by dimension."""
    classifier, videos = load_classifier(), context.videos_of(row)
    seen = read_clips(classifier.network, _clips(context, row))
    right, fewest_right = classifier.accuracy, 0.0
    dimensions, version = [*semantic.DIMENSIONS], semantic.SEMANTIC_VERSION
    if context.vbench.mode == "i2v":
        right, fewest_right = _accuracy(classifier), semantic.FEWEST_RIGHT
        dimensions, version = [*semantic.FAITHFULNESS], semantic.FAITHFULNESS_VERSION
    found = []
    for dimension in dimensions:
        marks = [
            (video.prompt, float(mark))
            for video, reading in zip(videos, seen, strict=True)
            for mark in semantic.clip_marks(dimension, [parse_caption(video.prompt)], [reading])
        ]
        score = score_of_marks(row, dimension, version, context.protocol_name, marks, len(marks))
        note = f"{semantic.LABEL}, which gets {right[dimension]:.3f} of drawn clips right"
        if right[dimension] < fewest_right:
            score = Score.unavailable(row, dimension, version, context.protocol_name, "higher", len(marks))
            note += f": too few, {fewest_right} are needed"
        found.append((score, f"{note}; ± over prompts"))
    return found


def _accuracy(classifier: ShippedClassifier) -> dict[str, float]:
    """The share of drawn clips of the image-to-video world that the classifier gets right."""
    origins = drawn_origins(CALIBRATION_CLIPS, CALIBRATION_INDEX)
    scenes = [parse_caption(caption) for caption in origins]
    clips = np.stack([draw_clip(*origin).frames for origin in origins.values()])
    seen = read_clips(classifier.network, clips)
    return {
        dimension: statistics.fmean(map(float, semantic.clip_marks(dimension, scenes, seen)))
        for dimension in semantic.FAITHFULNESS
    }


def _clips(context: VBenchContext, row: str) -> NDArray[np.uint8]:
    """A row's videos N T H W C uint8."""
    paths = [context.clip_path(row, video.name) for video in context.videos_of(row)]
    reader = ClipReader(paths, context.suite.profile.frames, None, workers=context.workers)
    clips = list(reader)
    reader.check()
    return np.stack(clips)
