"""Totals by the official constants, and none where a dimension is missing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vdmini_bench.config.vbench_dimensions import DIMENSIONS, I2V, OF_MODE, T2V, Mode, choose_dimensions
from vdmini_bench.errors import SuiteError
from vdmini_bench.vbench.totals import compute_totals, normalise


def test_the_modes_have_the_official_dimensions() -> None:
    assert len(T2V) == 16
    assert "temporal_flickering" in T2V
    assert len(I2V) == 9
    assert "temporal_flickering" not in I2V
    assert {"i2v_subject", "i2v_background", "camera_motion"} <= {*I2V}
    official_refusals = {
        "object_class", "multiple_objects", "scene", "appearance_style", "color", "spatial_relationship",
    }  # fmt: skip
    assert {*DIMENSIONS} - {*OF_MODE["custom"]} == official_refusals


# Printed by the official scripts for files in which every dimension has the same score.
@pytest.mark.parametrize(
    ("mode", "names", "score", "quality", "alignment", "total"),
    [
        ("t2v", T2V, 0.5, 0.143361, 0.845452, 0.283779),
        ("t2v", T2V, 0.0, None, None, -0.571748),
        ("t2v", T2V, 1.0, None, None, 1.139307),
        ("i2v", I2V, 0.5, 0.232845, 0.374921, 0.303883),
    ],
)
def test_totals_are_the_official_ones(
    mode: Mode, names: tuple[str, ...], score: float, quality: float | None, alignment: float | None, total: float
) -> None:
    assert mode != "custom"
    found = compute_totals(dict.fromkeys(names, score), mode)
    assert found.total == pytest.approx(total, abs=1e-6)
    if quality is not None:
        assert found.quality == pytest.approx(quality, abs=1e-6)
        assert found.alignment == pytest.approx(alignment, abs=1e-6)
    assert found.missing == ()


@pytest.mark.parametrize("mode", ["t2v", "i2v"])
def test_any_missing_dimension_takes_its_group_and_the_total_away(mode: Mode) -> None:
    assert mode != "custom"
    for left_out in OF_MODE[mode]:
        scores = {name: 0.7 for name in OF_MODE[mode] if name != left_out}
        found = compute_totals(scores, mode)
        assert found.missing == (left_out,)
        assert found.total is None
        in_quality = DIMENSIONS[left_out].group == "quality"
        assert (found.quality is None) == in_quality
        assert (found.alignment is None) == (not in_quality)
        assert len(found.normalised) == len(OF_MODE[mode]) - 1


@given(st.dictionaries(st.sampled_from(T2V), st.floats(0, 1), min_size=16))
def test_a_group_is_a_weighted_mean_of_what_it_is_made_of(scores: dict[str, float]) -> None:
    found = compute_totals(scores, "t2v")
    assert found.quality is not None
    of_group = [name for name in T2V if DIMENSIONS[name].group == "quality"]
    weights = [0.5 if name == "dynamic_degree" else 1.0 for name in of_group]
    by_hand = sum(w * normalise(name, scores[name]) for w, name in zip(weights, of_group, strict=True)) / 6.5
    assert found.quality == pytest.approx(by_hand)


def test_normalised_scores_are_not_clamped() -> None:
    assert normalise("motion_smoothness", 1.0) > 1
    assert normalise("subject_consistency", 0.1) < 0
    assert normalise("temporal_flickering", 0.6293) == 0


def test_dimensions_are_chosen_by_name_in_the_official_order() -> None:
    assert choose_dimensions("t2v", ["color,object_class", "temporal_flickering"]) == (
        "temporal_flickering", "object_class", "color",
    )  # fmt: skip
    assert choose_dimensions("i2v", []) == I2V
    with pytest.raises(SuiteError, match="no VBench dimension colour"):
        choose_dimensions("t2v", ["colour"])
    with pytest.raises(SuiteError, match="temporal_flickering: not scored in mode i2v"):
        choose_dimensions("i2v", ["temporal_flickering"])
