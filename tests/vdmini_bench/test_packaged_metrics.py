"""JEDi and FVMD as their packages have them, and as rows that a protocol asks for.

`golden/jedi_fvmd.npz` was made by videojedi 1.1.0 and fvmd 1.0.0 of the package registry; its `note` says of what.
"""

from __future__ import annotations

import importlib.machinery
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from vdmini_bench.config.protocol import ProtocolSpec
from vdmini_bench.config.suite import load_suite
from vdmini_bench.metrics import fvmd, jedi, packaged
from vdmini_bench.metrics.fvmd import fvmd_distance, motion_histograms
from vdmini_bench.metrics.jedi import jedi_distance
from vdmini_bench.metrics.packaged import FeatureMetric, packaged_metrics
from vdmini_bench.metrics.plugged import plugged_scores
from vdmini_bench.metrics.scorer import Scorer
from vdmini_bench.suites.jobs import plan_scoring

SUITE = Path(__file__).parents[2] / "suites" / "ucf101.yaml"


@pytest.fixture(scope="module")
def vectors(golden: Path) -> dict[str, NDArray[Any]]:
    with np.load(golden / "jedi_fvmd.npz") as archive:
        return {name: archive[name] for name in archive.files}


def protocol(*changes: str) -> ProtocolSpec:
    asked = ("protocol.packaged_metrics=[jedi,fvmd]", "protocol.reference=computed", *changes)
    return load_suite(SUITE, "embedded", asked).profile.protocol


def test_jedi_is_the_packages(vectors: dict[str, NDArray[Any]]) -> None:
    assert jedi_distance(vectors["features"], vectors["other_features"]) == pytest.approx(float(vectors["jedi"]), 1e-5)


def test_fvmd_is_the_packages(vectors: dict[str, NDArray[Any]]) -> None:
    assert np.abs(motion_histograms(vectors["tracks"]) - vectors["histograms"]).max() < 1e-5
    assert fvmd_distance(vectors["tracks"], vectors["other_tracks"]) == pytest.approx(float(vectors["fvmd"]), rel=1e-5)


def test_equal_sets_are_at_distance_0(vectors: dict[str, NDArray[Any]]) -> None:
    assert jedi_distance(vectors["features"], vectors["features"]) == pytest.approx(0, abs=1e-9)
    # Less the offset that the package counts once only, of 256 dimensions.
    assert fvmd_distance(vectors["tracks"], vectors["tracks"]) == pytest.approx(-2 * 256e-5, abs=1e-4)
    still = np.repeat(vectors["tracks"][:, :1], 16, axis=1)
    assert not motion_histograms(still).any()


def test_points_and_frames_beyond_whole_cells_are_left_out(vectors: dict[str, NDArray[Any]]) -> None:
    tracks = vectors["tracks"].reshape(-1, 16, 10, 10, 2)
    odd = np.pad(tracks, ((0, 0), (0, 1), (0, 2), (0, 2), (0, 0))).reshape(-1, 17, 144, 2)
    assert (motion_histograms(odd) == motion_histograms(vectors["tracks"])).all()


def test_without_package_weights_or_frames_the_rows_say_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    few = {each.name: each.problem for each in packaged_metrics(protocol())}
    assert few == {
        "jedi": "clips of 10 frames, and V-JEPA takes 16", "fvmd": "clips of 10 frames, and PIPs++ takes 16"
    }  # fmt: skip
    enough = protocol("protocol.frames=16")
    monkeypatch.setattr(jedi, "find_spec", lambda name: None)
    monkeypatch.setattr(fvmd, "find_spec", lambda name: None)
    for each in packaged_metrics(enough):
        assert each.metric is None
        assert "pip install --no-deps" in each.problem
    there = importlib.machinery.ModuleSpec("videojedi", None)
    monkeypatch.setattr(jedi, "find_spec", lambda name: there)
    monkeypatch.setattr(fvmd, "find_spec", lambda name: there)
    problems = [each.problem for each in packaged_metrics(enough)]
    assert problems == [
        "no vjepa-vith16: vdmini-bench assets import vjepa-vith16 PATH",
        "no fvmd-pips2: vdmini-bench assets import fvmd-pips2 PATH",
    ]
    scores, notes = plugged_scores(Scorer(enough, "student", "id"), None, packaged_metrics(enough))  # type: ignore[arg-type]
    assert [(each.metric, each.status) for each in scores] == [("jedi", "unavailable"), ("fvmd", "unavailable")]
    assert notes["jedi"] == problems[0]


def test_a_shipped_reference_has_no_frames_to_see() -> None:
    asked = protocol("protocol.reference=shipped")
    assert all("holds no frames" in each.problem for each in packaged_metrics(asked))


def test_real_clips_are_seen_once_for_all_blocks() -> None:
    seen = []

    def see(clips: Any) -> NDArray[np.float64]:
        seen.append(clips.name)
        return np.full((2, 1), clips.value)

    metric = FeatureMetric("jedi", "1", lambda: see, lambda x, y: float((x - y).mean()))
    real = SimpleNamespace(name="real", value=1.0, check=lambda: None)
    blocks = [SimpleNamespace(clips=SimpleNamespace(name=name, value=3.0), real=real) for name in ("a", "b")]
    assert [metric.of_block(block) for block in blocks] == [2, 2]  # type: ignore[arg-type]
    assert seen == ["real", "a", "b"]


def test_who_asks_for_none_keeps_its_identity_and_who_gets_one_is_scored_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert "packaged_metrics" not in load_suite(SUITE, "embedded").profile.protocol.model_dump()
    asked = protocol("protocol.frames=16")
    assert asked.model_dump()["packaged_metrics"] == ["jedi", "fvmd"]
    before = plan_scoring(asked, "m", "clips", "reference", "networks", {})
    monkeypatch.setattr(packaged, "why_no_jedi", lambda frames: None)
    after = plan_scoring(asked, "m", "clips", "reference", "networks", {})
    assert before.jobs["measure m"].key != after.jobs["measure m"].key
    assert before.jobs["reference"].key == after.jobs["reference"].key
