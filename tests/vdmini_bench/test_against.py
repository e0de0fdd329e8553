"""Rows against the baseline, as a run prints them: differences with intervals, what retraining made good, remarks."""

from __future__ import annotations

from dataclasses import replace

import pytest
from results_of_runs import FVD, SPEEDUP, row

from vdmini_bench.compare.against import against_lines, recovered, remarks
from vdmini_bench.results.records import Record
from vdmini_bench.results.score import Score
from vdmini_bench.results.stats import paired_interval

PRUNED = "denoiser: plan=vdmini"
MODELS: dict[str, tuple[str, ...]] = {
    "teacher": (), "6 steps": ("sample: steps=6",), "pruned": (PRUNED,), "student": (f"{PRUNED}, distilled",),
    "fast": (f"{PRUNED}, distilled", "sample: steps=6"), "other": ("denoiser: plan=uniform, distilled",),
}  # fmt: skip


def records(*scores: Score) -> list[Record]:
    return [Record(score, row(score), "run-1", "same clips") for score in scores]


def fvd(model: str, *blocks: float, trainings: int = 1) -> Score:
    value = sum(blocks) / len(blocks)
    return replace(FVD, model=model, value=value, blocks=blocks, trainings=trainings, standard_error=1.0)


def faster(model: str, value: float) -> Score:
    return replace(SPEEDUP, model=model, metric="speedup_end_to_end", value=value, blocks=())


def latency(model: str, value: float) -> Score:
    return replace(FVD, model=model, metric="latency_end_to_end", value=value, unit="ms", blocks=(value,) * 3)


def test_each_row_has_its_difference_with_an_interval_and_what_that_says() -> None:
    header, lines = against_lines(
        records(fvd("teacher", 300, 310, 305), fvd("student", 350, 362, 356)), MODELS, "teacher"
    )
    assert header == ["against teacher", "FVD", "in FVD"]
    difference, low, high = paired_interval((300, 310, 305), (350, 362, 356))
    assert lines == [["student", f"{difference:+.3g} ({low:+.3g} to {high:+.3g})", "student is worse"]]


def test_trainings_pair_by_their_seeds_and_never_with_blocks_of_clips() -> None:
    """The third has as many blocks as the others have trainings."""
    scores = (fvd("student", 500, 530, 515, trainings=3), fvd("other", 510, 541, 525, trainings=3))
    _, lines = against_lines(records(*scores, fvd("pruned", 900, 905, 910)), MODELS, "student")
    cells = {line[0]: line[1] for line in lines}
    difference, low, high = paired_interval(scores[0].blocks, scores[1].blocks)
    assert cells["other"] == f"{difference:+.3g} ({low:+.3g} to {high:+.3g})"
    half = 1.96 * 2**0.5
    assert cells["pruned"] == f"{390:+.3g} ({390 - half:+.3g} to {390 + half:+.3g})"


def test_what_retraining_made_good_is_of_the_loss_of_the_same_pruning() -> None:
    scores = [fvd("teacher", 300), fvd("pruned", 800), fvd("student", 350), fvd("fast", 400), fvd("other", 310)]
    # `fast` was pruned and takes other steps, of which nothing was sampled untrained; nor was anything of `other`.
    assert recovered(records(*scores, fvd("real", 100)), MODELS) == {"student": pytest.approx(0.9)}
    header, lines = against_lines(records(*scores), MODELS, "teacher")
    assert header[-1] == "loss in FVD recovered"
    assert {line[0]: line[-1] for line in lines}["student"] == "90%"
    assert recovered(records(*scores[1:]), MODELS) == {}


def test_remarks_say_what_is_dominated_and_what_beats_fewer_steps() -> None:
    quality = [fvd("teacher", 300), fvd("6 steps", 310), fvd("pruned", 800), fvd("student", 305)]
    timed = [latency("teacher", 100.0), faster("6 steps", 1.9), faster("pruned", 1.5), faster("student", 1.9)]
    told = remarks(records(*quality, *timed), MODELS, "teacher")
    assert any(line.startswith("6 steps is ") and line.endswith(" than student") for line in told)
    assert any(line.startswith("student is better than teacher with fewer steps at its latency") for line in told)
    assert remarks(records(*quality), MODELS, "teacher") == []
