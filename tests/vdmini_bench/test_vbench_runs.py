"""Whole runs of the suites in VBench's dimensions, on tiny models: rows, tables, resuming, and what is missing."""

from __future__ import annotations

import json
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from small_videos import fake_environment, write_classifier, write_teacher

from vdmini.distill.estimate import Estimate
from vdmini.models.registry import EMBEDDED
from vdmini_bench.assets.cache import import_asset
from vdmini_bench.assets.catalogue import ASSETS, VBENCH_PROMPTS
from vdmini_bench.cli import main
from vdmini_bench.config.vbench_dimensions import T2V, VBENCH_VERSION
from vdmini_bench.distill import estimate as estimation
from vdmini_bench.metrics import scene_classifier, semantic
from vdmini_bench.vbench.native.catalogue import DINO
from vdmini_bench.vbench.native.vision import VisionTransformer

pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
)
SUITES = Path(__file__).parents[2] / "suites"
T2V_SUITE, I2V_SUITE = SUITES / "vbench_t2v.yaml", SUITES / "vbench_i2v.yaml"


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A text-to-video pipeline and a classifier with random weights."""
    folder = tmp_path_factory.mktemp("weights")
    write_teacher(folder / "t2v")
    write_classifier(folder / "classifier")
    return folder


@pytest.fixture
def tiny(weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """These in the places of the shipped ones, and no official package."""
    monkeypatch.setitem(EMBEDDED, "embedded/t2v", weights / "t2v")
    monkeypatch.setattr(scene_classifier, "SHIPPED", weights / "classifier")
    monkeypatch.setattr(scene_classifier.load_classifier, "__defaults__", (weights / "classifier",))
    monkeypatch.setenv("VDMINI_VBENCH_ENV", str(tmp_path / "no-environment"))
    monkeypatch.setenv("VBENCH_CACHE_DIR", str(tmp_path / "no-weights"))
    return weights


SMALL = (
    "distill.steps=1", "distill.batch_size=1", "distill.discriminator_warmup=0", "dataset.train_clips=2",
    "sample.steps=1", "sample.batch_size=3", "vbench.prompt_count=2", "timing.runs=3", "timing.warmup=1",
)  # fmt: skip


def run(suite: Path, results: Path, *more: str) -> tuple[int, dict[str, Any], str]:
    settings = [part for setting in (*SMALL, *more) for part in ("--set", setting)]
    command = ["run", str(suite), "--profile", "smoke", *settings, "--results", str(results), "--json"]
    done = CliRunner().invoke(main, command)
    return done.exit_code, json.loads(done.stdout) if done.stdout.startswith("{") else {}, done.stderr


def by_place(rows: list[dict[str, Any]]) -> dict[tuple[str, str], dict[str, Any]]:
    return {(row["model"], row["metric"]): row for row in rows}


def test_text_to_video_runs_to_a_table_without_a_total(tiny: Path, tmp_path: Path) -> None:
    code, output, errors = run(T2V_SUITE, tmp_path / "results")
    assert code == 0, errors
    rows = by_place(output["rows"])
    for model in ("real", "teacher", "pruned", "student"):
        measured = {metric for (of, metric), row in rows.items() if of == model and row["status"] == "ok"}
        assert {"vbench_temporal_flickering", *semantic.DIMENSIONS} <= measured
        assert {f"vbench_{name}" for name in T2V} <= {metric for of, metric in rows if of == model}
        for name in ("vbench_quality", "vbench_semantic", "vbench_total", "vbench_object_class"):
            assert (rows[model, name]["status"], rows[model, name]["value"]) == ("unavailable", None)
        assert "15 of 16 dimensions missing" in rows[model, "vbench_total"]["note"]
        assert "gets 0.970 of drawn clips right" in rows[model, "embedded-color"]["note"]
        assert rows[model, "vbench_temporal_flickering"]["metric_version"] == "native-2"
        assert rows[model, "vbench_temporal_flickering"]["n"] == 4
    assert all("not comparable with published VBench" in row["note"] for row in rows.values())
    assert float(rows["student", "params_m"]["value"]) < float(rows["teacher", "params_m"]["value"])
    assert float(rows["student", "denoiser_gflops"]["value"]) < float(rows["teacher", "denoiser_gflops"]["value"])
    folder = Path(output["run_dir"])
    table = (folder / "table.md").read_text(encoding="utf-8")
    total = next(line for line in table.splitlines() if line.startswith("| Total"))
    assert total.split("|")[2:6] == [" unavailable "] * 4
    assert (folder / "contact_sheet.png").stat().st_size > 1000
    before = (tmp_path / "results" / "leaderboard.csv").read_bytes()
    code, second, _ = run(T2V_SUITE, tmp_path / "results")
    assert (code, second["jobs"]["ran"], second["rows"]) == (0, 0, output["rows"])
    assert (tmp_path / "results" / "leaderboard.csv").read_bytes() == before
    compared = CliRunner().invoke(
        main, ["compare", "teacher", "student", "--results", str(tmp_path / "results"), "--json"]
    )
    assert compared.exit_code == 0, compared.stderr
    deltas = {row["metric"]: row for row in json.loads(compared.stdout)["rows"]}
    flickering = deltas["vbench_temporal_flickering"]
    assert flickering["ci"][0] <= flickering["delta"] <= flickering["ci"][1]
    assert "vbench_total" not in deltas


@pytest.mark.slow
def test_image_to_video_is_scored_by_the_official_code_where_it_is_there(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(
        "VDMINI_VBENCH_ENV", str(fake_environment(tmp_path / "env", i2v_background="no dreamsim").folder)
    )
    # As if every clip were told right, whatever the random classifier says.
    monkeypatch.setattr(semantic, "FEWEST_RIGHT", 0.0)
    more = ("dataset.drawn_train_per_group=1", "dataset.drawn_test_per_group=1")
    code, output, errors = run(I2V_SUITE, tmp_path / "results", *more)
    assert code == 0, errors
    rows = by_place(output["rows"])
    for model in ("real", "teacher", "pruned", "student"):
        extra = rows[model, "vbench_temporal_flickering"]
        assert (extra["metric_version"], extra["value"]) == (f"vbench-{VBENCH_VERSION}", 0.5)
        assert rows[model, "vbench_camera_motion"]["value"] == 0.5
        assert "no dreamsim" in rows[model, "vbench_i2v_background"]["note"]
        assert {rows[model, name]["status"] for name in semantic.FAITHFULNESS} == {"ok"}
        assert rows[model, "vbench_total"]["value"] is None
        assert "temporal_flickering" not in rows[model, "vbench_total"]["note"]
    monkeypatch.setattr(semantic, "FEWEST_RIGHT", 1.1)
    monkeypatch.setattr(semantic, "FAITHFULNESS_VERSION", "another")
    code, output, errors = run(I2V_SUITE, tmp_path / "results", *more)
    poor = by_place(output["rows"])["teacher", "embedded-i2v_subject"]
    assert (code, poor["status"], poor["value"]) == (0, "unavailable", None)
    assert "too few" in poor["note"]
    assert output["jobs"]["ran"] == 4


def test_weights_alone_have_a_suite_scored_natively(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "weights" / DINO
    file.parent.mkdir(parents=True)
    torch.manual_seed(0)
    sizes = {"patch_embed.proj.weight": (64, 3, 16, 16), "patch_embed.proj.bias": (64,), "norm.weight": (64,)}
    sizes |= {"cls_token": (1, 1, 64), "pos_embed": (1, 197, 64), "blocks.0.norm1.weight": (64,)}
    network = VisionTransformer({name: torch.zeros(size) for name, size in sizes.items()}, torch.nn.GELU(), 1e-6)
    # Where it would be zeros, all frames would look alike.
    torch.save({name: torch.randn_like(value) for name, value in network.state_dict().items()}, file)
    monkeypatch.setenv("VBENCH_CACHE_DIR", str(tmp_path / "weights"))
    monkeypatch.setattr(semantic, "FEWEST_RIGHT", 0.0)
    few = ("dataset.drawn_train_per_group=1", "dataset.drawn_test_per_group=1")
    code, output, errors = run(I2V_SUITE, tmp_path / "results", *few)
    assert code == 0, errors
    rows = by_place(output["rows"])
    for name in ("vbench_subject_consistency", "vbench_i2v_subject"):
        values = {float(rows[model, name]["value"]) for model in ("real", "teacher", "pruned", "student")}
        assert len(values) > 1
        assert all(0 < value < 1 for value in values)
        row = rows["student", name]
        assert (row["status"], row["metric_version"], row["n"]) == ("ok", "native-2", 2)
        assert "native code on the official weights, on prompts of the drawn world" in row["note"]
    assert "our own code: " in rows["student", "vbench_i2v_background"]["note"]


def teacher_alone(folder: Path) -> Path:
    """The text-to-video suite without its students."""
    text = T2V_SUITE.read_text(encoding="utf-8")
    rows = "      pruned: {plan: vdmini}\n      student: {plan: vdmini, distill: {}}\n"
    assert rows in text
    (folder / "suite.yaml").write_text(text.replace(rows, ""), encoding="utf-8")
    return folder / "suite.yaml"


def test_prompts_of_a_file_are_sampled_and_scored_where_nothing_official_is_needed(tiny: Path, tmp_path: Path) -> None:
    file, results = tmp_path / "prompts.csv", tmp_path / "results"
    long = "a very long sentence about a red circle " * 10
    file.write_text(f"id,prompt\n1,a red circle moves left\n2,{long}\n3,not asked for\n", encoding="utf-8")
    asked = (f"vbench.prompts={file}", "clip.frames=6", "models.two steps={sample: {steps: 2}}")
    suite = teacher_alone(tmp_path)
    code, output, errors = run(suite, results, *asked)
    assert code == 0, errors
    rows = by_place(output["rows"])
    flickering = rows["teacher", "vbench_temporal_flickering"]
    assert (flickering["status"], flickering["n"]) == ("ok", 4)
    assert flickering["protocol"].startswith("vbench-prompts-")
    assert flickering["protocol"].endswith("@1/p2x2/seed0")
    assert "on prompts.csv" in flickering["note"]
    assert {model for model, _ in rows} == {"teacher", "two steps"}
    assert rows["two steps", "vbench_temporal_flickering"]["status"] == "ok"
    assert "defined for the official prompts alone" in rows["teacher", "vbench_total"]["note"]
    assert "needs the official prompts" in rows["teacher", "vbench_color"]["note"]
    # Other words are another protocol, and other videos.
    file.write_text(file.read_text(encoding="utf-8").replace("red", "green"), encoding="utf-8")
    _, again, _ = run(suite, results, *asked)
    assert by_place(again["rows"])["teacher", "vbench_temporal_flickering"]["protocol"] != flickering["protocol"]
    # What a model costs is known.
    assert output["jobs"]["ran"] - again["jobs"]["ran"] == 3
    file.write_text("id,name\n1,a\n", encoding="utf-8")
    code, output, errors = run(suite, results, *asked)
    assert (code, output) == (2, {})
    assert "prompts.csv:1: no column for the prompt" in errors


def test_official_prompts_need_no_environment_where_our_own_code_scores(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    official = ("vbench.prompts=official", "vbench.prompt_count=null", "vbench.samples_per_prompt=null")
    chosen = ("vbench.code=native", "vbench.dimensions=[temporal_flickering]", "vbench.static_filter=false")
    small = ("clip.frames=3", "sample.height=16", "sample.width=16")
    cache = tmp_path / "cache"
    monkeypatch.setenv("VDMINI_CACHE", str(cache))
    code, _, errors = run(teacher_alone(tmp_path), tmp_path / "results", *official, *chosen, *small)
    assert code == 2
    assert "vdmini-bench assets fetch vbench-prompts" in errors
    assert "vdmini-bench assets vbench" not in errors
    content = json.dumps(
        [{"prompt_en": "a cat", "dimension": ["temporal_flickering"]}, {"prompt_en": "a dog", "dimension": ["color"]}]
    ).encode()
    (tmp_path / "VBench_full_info.json").write_bytes(content)
    asset = replace(ASSETS[VBENCH_PROMPTS], sha256=sha256(content).hexdigest(), size_bytes=len(content))
    monkeypatch.setitem(ASSETS, VBENCH_PROMPTS, asset)
    import_asset(VBENCH_PROMPTS, tmp_path / "VBench_full_info.json")
    code, output, errors = run(teacher_alone(tmp_path), tmp_path / "results", *official, *chosen, *small)
    assert code == 0, errors
    row = by_place(output["rows"])["teacher", "vbench_temporal_flickering"]
    assert (row["status"], row["n"], row["protocol"]) == ("ok", 5, "vbench-t2v-unfiltered")


def test_what_is_not_installed_is_listed_and_nothing_runs(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(EMBEDDED, "embedded/t2v", tmp_path / "absent")
    monkeypatch.setattr(scene_classifier, "SHIPPED", tmp_path / "absent")
    code, output, errors = run(T2V_SUITE, tmp_path / "results")
    assert (code, output) == (2, {})
    assert "'embedded/t2v' is not part of this installation" in errors
    assert "scene classifier" in errors
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(("suite", "data"), [(T2V_SUITE, "dataset.path=FOLDER"), (I2V_SUITE, "vbench-i2v")])
def test_the_real_setting_lists_every_asset_that_is_missing(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suite: Path, data: str
) -> None:
    command = ["run", str(suite), "--profile", "paper", "--results", str(tmp_path / "results")]
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 2
    assert data in done.stderr
    assert "vdmini-bench assets vbench" in done.stderr
    assert "musiq_spaq" in done.stderr
    assert "hubconf" in done.stderr
    # Our own code needs no clone of DINO's, and the package only for what it does not score.
    native = CliRunner().invoke(main, [*command, "--set", "vbench.code=native"])
    assert native.exit_code == 2
    assert "musiq_spaq" in native.stderr
    assert "hubconf" not in native.stderr
    assert "camera_motion" in native.stderr or "human_action" in native.stderr
    assert not (tmp_path / "results").exists()


def test_plans_write_nothing(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # What a step needs is estimated elsewhere, slowly.
    monkeypatch.setattr(estimation, "estimate_step", lambda *_, **__: Estimate(1, 1, 1))
    settings = [part for setting in SMALL for part in ("--set", setting)]
    for command in (["run"], ["distill", "--no-timing"]):
        done = CliRunner().invoke(
            main, [*command, str(T2V_SUITE), *settings, "--dry-run", "--json", "--results", str(tmp_path / "results")]
        )
        assert done.exit_code == 0, done.stderr
        plan = json.loads(done.stdout)
        assert {job["name"] for job in plan.get("jobs", plan.get("steps"))} >= {
            "encode",
            "prune pruned",
            "distill student",
        }
    assert not (tmp_path / "results").exists()
