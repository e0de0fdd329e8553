"""The speed suite that ships: every entry fits its model, and the paper's numbers stand beside ours."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch

from vdmini.models.loading import load_model
from vdmini.rules import make_plan
from vdmini.vae import prune_decoder
from vdmini_bench.config.speed import SpeedSuite, load_speed_suite
from vdmini_bench.config.timing import SpeedRequest
from vdmini_bench.errors import NoDeviceError, SuiteError
from vdmini_bench.models.inspect import read_or_make_plan
from vdmini_bench.speed.paper import speed_lines, with_paper
from vdmini_bench.speed.rows import SpeedRow
from vdmini_bench.speed.scopes import ClipSize, latent_size
from vdmini_bench.speed.suite import run_speed_suite
from vdmini_bench.speed.timing import Timing

SUITE = Path(__file__).parents[2] / "suites" / "speed.yaml"


@pytest.fixture(scope="module")
def suite() -> SpeedSuite:
    return load_speed_suite(SUITE)


@pytest.mark.parametrize("name", ["svd", "t2v-turbo-v2", "hunyuanvideo"])
def test_every_entry_fits_its_model(name: str, suite: SpeedSuite) -> None:
    asked = [entry.request(suite.dtype) for entry in suite.entries.values() if entry.model == name]
    model = load_model(name, random_weights=True, device="meta")
    for frames, size in {(request.frames, request.size) for request in asked}:
        assert frames is not None
        assert size is not None
        latent_size(model, ClipSize(frames, *size, 1))
    for plan in {plan for request in asked for plan in request.plans}:
        assert read_or_make_plan(plan, model).removed
    for widths in {request.decoder for request in asked if request.decoder is not None}:
        assert prune_decoder(model.vae, widths=widths) is not None  # type: ignore[arg-type]


def test_the_sizes_are_the_papers(suite: SpeedSuite) -> None:
    sizes = {(e.model, e.frames, e.size): e.steps for e in suite.entries.values()}
    assert sizes == {
        ("svd", 14, "576x1024"): 1,
        ("t2v-turbo-v2", 16, "320x512"): 16,
        ("hunyuanvideo", 97, "544x960"): 50,
    }
    assert {entry.compiled for entry in suite.entries.values()} == {True, False}


def report(speedup: float | None) -> dict[str, object]:
    row = {"scope": "end_to_end", "median_ms": 10.0, "flop_speedup": 2.0, "verdict": "faster", "throttled_by": None}
    teacher = {**row, "model": "teacher", "speedup": None, "speedup_ci": None}
    return {"notes": [], "rows": [teacher, {**row, "model": "vdmini", "speedup": speedup, "speedup_ci": [1.9, 2.2]}]}


def test_rows_carry_the_papers_number_marked_as_of_other_hardware(suite: SpeedSuite) -> None:
    marked = with_paper(report(2.0), "svd-1-step", suite.entry("svd-1-step"))
    said = marked["rows"][1]["paper"]
    assert [(each["ratio"], each["hardware"]) for each in said] == [(2.5, "other")]
    header, lines = speed_lines([marked])
    assert lines[0][header.index("paper (other hardware)")] == "x2.5"
    assert lines[0][header.index("speed-up")] == "x2.000"


def test_a_ratio_follows_from_two_times(suite: SpeedSuite) -> None:
    paper = suite.entry("svd-1-step").paper
    assert paper[1].ratio == pytest.approx(512 / 345)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("steps: 1", "step: 1"), "speed.yaml:17:9: unknown key 'step'; did you mean 'steps'"),
        (("size: 576x1024", "size: 576"), "speed.yaml:16:9: size"),
        (("scopes: [denoiser]", "scopes: [denoizer]"), "speed.yaml:39:9"),
        (("      svd-1-step-compiled:", "      svd-1-step:"), "'svd-1-step' is given twice"),
        (("warmup: 1", "runs: 3"), "greater than or equal to 10"),
    ],
)
def test_a_wrong_suite_is_refused_at_its_place(change: tuple[str, str], said: str, tmp_path: Path) -> None:
    path = tmp_path / "speed.yaml"
    path.write_text(SUITE.read_text(encoding="utf-8").replace(*change, 1), encoding="utf-8")
    with pytest.raises(SuiteError, match=said):
        load_speed_suite(path)


def test_a_gpu_profile_without_a_gpu_and_an_unknown_entry_are_refused(
    suite: SpeedSuite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(NoDeviceError, match="--profile cpu"):
        run_speed_suite(suite, tmp_path)
    with pytest.raises(SuiteError, match="did you mean 'svd-1-step'"):
        run_speed_suite(suite, tmp_path, ["svd-1-stepp"])
    with pytest.raises(SuiteError, match="no profile 'gpuu'"):
        load_speed_suite(SUITE, "gpuu")


class Timed:
    """Stands for the report of a run that took no time."""

    def write(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)

    def to_json(self) -> dict[str, object]:
        return report(2.0)


def test_what_was_timed_is_not_timed_again_unless_it_is_asked_for_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def time_models(request: SpeedRequest, device: torch.device, keep: Callable[[Sequence[SpeedRow]], None]) -> Timed:
        asked.append(f"{request.model} {request.dtype} {device}")
        return Timed()

    monkeypatch.setattr("vdmini_bench.speed.suite.time_models", time_models)
    suite = load_speed_suite(SUITE, "cpu")
    assert len(run_speed_suite(suite, tmp_path, ["svd"])) == 1
    assert len(run_speed_suite(suite, tmp_path)) == 3
    assert asked == ["svd float32 cpu", "t2v-turbo-v2 float32 cpu", "hunyuanvideo float32 cpu"]
    assert (tmp_path / "speed.md").read_text(encoding="utf-8").count("end_to_end") == 3
    run_speed_suite(suite.model_copy(update={"dtype": "bfloat16"}), tmp_path, ["svd"])
    assert asked[3:] == ["svd bfloat16 cpu"]


def test_a_plan_file_that_says_something_else_is_timed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, ...]] = []

    def time_models(request: SpeedRequest, device: torch.device, keep: Callable[[Sequence[SpeedRow]], None]) -> Timed:
        asked.append(request.plans)
        return Timed()

    monkeypatch.setattr("vdmini_bench.speed.suite.time_models", time_models)
    suite, plan = load_speed_suite(SUITE, "cpu"), tmp_path / "mine.json"
    entry = suite.entry("svd").model_copy(update={"plans": [str(plan)]})
    suite = suite.model_copy(update={"entries": {"svd": entry}})
    for rule in ("vdmini", "vdmini", "none"):
        plan.write_text(make_plan("svd", rule).to_json())
        run_speed_suite(suite, tmp_path / "out")
    assert asked == [(str(plan),)] * 2


def test_what_an_entry_had_timed_before_it_failed_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    timing = Timing("teacher", "denoiser", (200.0, 300.0), 0)
    row = SpeedRow(timing, None, None, None, None, "", {})
    fails = True

    def time_models(request: SpeedRequest, device: torch.device, keep: Callable[[Sequence[SpeedRow]], None]) -> Timed:
        keep([row])
        if fails:
            raise RuntimeError("no memory for the decoder")
        return Timed()

    monkeypatch.setattr("vdmini_bench.speed.suite.time_models", time_models)
    suite = load_speed_suite(SUITE, "cpu")
    with pytest.raises(RuntimeError, match="decoder"):
        run_speed_suite(suite, tmp_path, ["svd"])
    kept = tmp_path / "svd" / "scopes.json"
    assert json.loads(kept.read_text(encoding="utf-8"))[0]["scope"] == "denoiser"
    fails = False
    run_speed_suite(suite, tmp_path, ["svd"])
    assert not kept.exists(), "the whole record has it all"
