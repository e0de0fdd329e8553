"""What multiplies: exact products and sums for constructed rows, and silence where nothing applies."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from results_of_runs import FVD, SPEEDUP, row

from vdmini_bench.compare.multiplied import multiplied_lines
from vdmini_bench.results.records import Record
from vdmini_bench.results.score import Better, Score

INT8, STEPS, DECODER = "accelerate: torchao int8_weight_only", "sample: steps=6", "decoder: parameters=39170000"
MODELS: dict[str, tuple[str, ...]] = {
    "teacher": (), "6 steps, <b>half</b>": (STEPS,), "int8": (INT8,), "both": (STEPS, INT8), "lone": (DECODER, INT8),
}  # fmt: skip


def records(scores: list[Score]) -> list[Record]:
    return [Record(score, row(score), "run-1", None) for score in scores]


def fvd(model: str, value: float, better: Better = "lower") -> Score:
    blocks = tuple(value + off for off in (-1.0, 0.0, 1.0))
    return replace(FVD, model=model, value=value, better=better, blocks=blocks)


def faster(model: str, value: float, error: float = 0.1) -> Score:
    return replace(SPEEDUP, model=model, metric="speedup_end_to_end", value=value, standard_error=error, blocks=())


FACTORS = st.floats(0.2, 20)


@settings(deadline=None, max_examples=30)
@given(FACTORS, FACTORS, FACTORS, st.sampled_from(["lower", "higher"]))
def test_products_and_sums_are_those_of_single_rows(one: float, other: float, both: float, better: Better) -> None:
    sign = 1 if better == "lower" else -1
    values = {"teacher": 100.0, "6 steps, <b>half</b>": 100 + sign * 7.0, "int8": 100 - sign * 2.0, "both": 100.0}
    scores = [fvd(model, value, better) for model, value in values.items()]
    scores += [faster("6 steps, <b>half</b>", one), faster("int8", other), faster("both", both)]
    header, (line,) = multiplied_lines(records(scores), MODELS, "teacher")
    cells = dict(zip(header, line, strict=True))
    assert cells["row"] == "both"
    assert cells["built of"] == "6 steps, <b>half</b> + int8"
    for name, value in (("speed-up", both), ("product of single speed-ups", one * other)):
        assert cells[name].startswith(f"x{value:.3g} (")
    # Blocks that pair differ by the same: the intervals are of no width.
    assert cells["loss in FVD"] == "+0 (+0 to +0)"
    assert cells["sum of single losses"] == "+5 (+5 to +5)"


def test_errors_of_logarithms_add_in_squares() -> None:
    scores = [faster("6 steps, <b>half</b>", 2.0, 0.1), faster("int8", 4.0, 0.3), faster("both", 6.0, 0.2)]
    _, (line,) = multiplied_lines(records(scores), MODELS, "teacher")
    half = 1.96 * math.hypot(0.1 / 2, 0.3 / 4)
    assert line[3] == f"x8 (x{8 * math.exp(-half):.3g} to x{8 * math.exp(half):.3g})"
    assert line[2].startswith("x6 (x5.62 to x6.4")
    assert line[4:] == ["-", "-"]


def test_errors_of_losses_add_in_squares() -> None:
    def noisy(model: str, value: float) -> Score:
        return replace(FVD, model=model, value=value, standard_error=3.0, blocks=())

    values = {"teacher": 100.0, "6 steps, <b>half</b>": 110.0, "int8": 120.0, "both": 140.0}
    _, (line,) = multiplied_lines(records([noisy(*each) for each in values.items()]), MODELS, "teacher")
    half = 1.96 * math.sqrt(4 * 3.0**2)
    assert line[5] == f"+30 ({30 - half:+.3g} to {30 + half:+.3g})"
    assert line[2:4] == ["-", "-"]


@pytest.mark.parametrize(
    ("models", "baseline"),
    [
        ({}, "teacher"),
        # A measure that no row has alone.
        ({name: made for name, made in MODELS.items() if name != "int8"}, "teacher"),
        # Built on something else than the baseline.
        ({**MODELS, "base": ("source: other",)}, "base"),
    ],
)
def test_nothing_is_said_where_nothing_applies(models: dict[str, tuple[str, ...]], baseline: str) -> None:
    header, lines = multiplied_lines(records([fvd("teacher", 1.0)]), models, baseline)
    assert (len(header), lines) == (6, [])


def test_measures_of_the_baseline_itself_are_no_parts() -> None:
    models = {name: (*measures, "lora: mine") for name, measures in MODELS.items()}
    scores = [faster("6 steps, <b>half</b>", 2.0), faster("int8", 4.0)]
    _, (line,) = multiplied_lines(records(scores), models, "teacher")
    assert line[:4] == ["both", "6 steps, <b>half</b> + int8", "-", "x8 (x7.17 to x8.93)"]
