"""A run whose rows are made in every way that the embedded teacher can be: what each is, and what is refused."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from conftest import put_small_network

from vdmini_bench.cli import main
from vdmini_bench.results.score import Score
from vdmini_bench.runs.rows import over_trainings

SUITE = Path(__file__).parents[2] / "suites" / "ucf101.yaml"
DECODER = "{widths: [96, 32, 96], layers: [2, 1, 1], finetune: {steps: 2, frames: 2, discriminator_start: 1}}"
ROWS = (
    "{teacher: {}, again: {sample: {batch_size: 2}}, one step: {sample: {steps: 1}},"
    " student: {plan: vdmini, distill: {lambda_mca: 0}}, taylor: {channels: 'depgraph-taylor:ratio=0.2,tolerance=0.2'},"
    " again pruned: {from: student, plan: 'uniform:flops=0.95'},"
    f" 'small, <b>': {{decoder: {DECODER}}}, both: {{from: student, decoder: {DECODER}, sample: {{steps: 1}}}}}}"
)
FEWER = (
    "protocol.clips_per_block=3", "protocol.blocks=2", "dataset.train_clips=3", "dataset.drawn_test_per_group=1",
    "distill.steps=1", "distill.batch_size=2", "sample.steps=2", "sample.batch_size=2",
)  # fmt: skip
pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("rows")
    with pytest.MonkeyPatch.context() as patch:
        put_small_network(patch, folder)
        yield folder / "results"


@pytest.fixture(scope="module")
def done(results: Path) -> dict[str, Any]:
    """One run of all rows, nothing timed and what is trained trained twice, and what it printed."""
    settings = (*FEWER, f"models={ROWS}", "seeds={training: 2}", "timing=null")
    options = [part for setting in settings for part in ("--set", setting)]
    command = ["run", str(SUITE), "--profile", "smoke", *options, "--results", str(results), "--json"]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 0, result.output
    printed: dict[str, Any] = json.loads(result.stdout.strip().splitlines()[-1])
    return {**printed, "command": command}


def test_every_row_is_what_it_says(done: dict[str, Any]) -> None:
    rows = {(row["model"], row["metric"]): row for row in done["rows"]}
    models = [*dict.fromkeys(row["model"] for row in done["rows"])]
    assert models[:2] == ["real", "static"]
    assert {*models[2:]} == {"teacher", "again", "one step", "student", "taylor", "again pruned", "small, <b>", "both"}
    value = {key: row["value"] for key, row in rows.items()}
    for name in ("taylor", "student", "both"):
        assert value[name, "denoiser_gflops"] < 0.7 * value["teacher", "denoiser_gflops"]
    assert value["again pruned", "denoiser_gflops"] < value["student", "denoiser_gflops"]
    for name in ("small, <b>", "both"):
        assert value[name, "decoder_gflops"] < 0.5 * value["teacher", "decoder_gflops"]
    # The same clips in the same batches are the same, and the teacher is not compared with itself.
    assert (value["again", "psnr"], value["again", "content_distance"]) == (100, 0)
    assert value["one step", "psnr"] < 100
    assert ("teacher", "psnr") not in rows
    assert rows["both", "fvd"]["recipe"] == "; ".join(
        ["denoiser: plan=vdmini, distilled, lambda_mca=0.0",
         "decoder: widths=[96, 32, 96], layers=[2, 1, 1], fine-tuned, steps=2, frames=2, discriminator_start=1",
         "sample: steps=1"]
    )  # fmt: skip
    assert rows["student", "fvd"]["checkpoint_sha"] != rows["both", "fvd"]["checkpoint_sha"]
    assert rows["teacher", "fvd"]["role"] == "teacher"
    assert "decoder fine-tuned by efficientnet-lite0-imagenet-1" in rows["both", "fvd"]["note"]
    assert "fine-tuned" not in rows["student", "fvd"]["note"]
    folder = Path(done["run_dir"])
    table, page = (folder / "table.md").read_text(), (folder / "report.html").read_text()
    assert "against teacher" in table
    assert "small, &lt;b&gt;" in page
    assert "small, <b>" not in page


def test_trainings_are_averaged_and_kept(done: dict[str, Any]) -> None:
    lines = [json.loads(line) for line in (Path(done["run_dir"]) / "results.jsonl").read_text().splitlines()]
    (fvd,) = (line for line in lines if (line["model"], line["metric"]) == ("student", "fvd"))
    assert fvd["trainings"] == len(fvd["blocks"]) == 2
    assert fvd["value"] == statistics.fmean(fvd["blocks"])
    assert fvd["blocks"][0] != fvd["blocks"][1]
    (teacher,) = (line for line in lines if (line["model"], line["metric"]) == ("teacher", "fvd"))
    assert teacher["trainings"] == 1


def test_a_second_run_reads_and_a_new_row_adds_only_its_own(done: dict[str, Any]) -> None:
    again = CliRunner().invoke(main, [*done["command"], "--set", "models.new={sample: {steps: 3}}"])
    assert again.exit_code == 0, again.output
    assert json.loads(again.stdout.strip().splitlines()[-1])["jobs"]["ran"] == 3


def test_the_decoder_alone_is_other_and_a_cache_is_refused_before_anything_is_made(
    done: dict[str, Any], results: Path
) -> None:
    assert len([*(results / "work").glob("decoder-*")]) == 2, "one a training seed, shared by both rows"
    refused = CliRunner().invoke(main, [*done["command"], "--set", "models.new={accelerate: [{cache: first_block}]}"])
    assert refused.exit_code == 2
    assert "models: new: accelerate: " in refused.output
    assert "UNetSpatioTemporalConditionModel has no such hooks" in refused.output


def score(value: float | None, status: str = "ok") -> Score:
    return Score("m", "fvd", "1", "p", value, "", "lower", 0.5, 6, 6, status, (1.0, 2.0))  # type: ignore[arg-type]


def test_a_training_without_a_score_leaves_no_smaller_mean() -> None:
    (both,) = over_trainings("row", [[score(3.0)], [score(5.0)]])
    assert (both.model, both.value, both.standard_error, both.blocks) == ("row", 4.0, 1.0, (3.0, 5.0))
    assert (both.n, both.n_expected) == (12, 12)
    (lacking,) = over_trainings("row", [[score(3.0)], [score(None, "unavailable")]])
    assert (lacking.value, lacking.status, lacking.blocks, lacking.standard_error) == (None, "unavailable", (), None)
    (one,) = over_trainings("row", [[score(3.0)]])
    assert one == replace(score(3.0), model="row")
