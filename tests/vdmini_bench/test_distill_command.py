"""The command `distill`: what it refuses, what it plans, and the jobs it shares with `run`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result
from safetensors.torch import load_file, save_file

from vdmini.conditioning.base import EncodeSettings
from vdmini.distill import DistillSettings
from vdmini.distill.estimate import Estimate
from vdmini.models.loading import load_model
from vdmini.models.registry import EMBEDDED
from vdmini_bench.cli import main
from vdmini_bench.config.distillation import load_distillation
from vdmini_bench.config.models import DistillSpec
from vdmini_bench.config.suite import load_suite
from vdmini_bench.data.synthetic import draw_clip
from vdmini_bench.data.video import write_video
from vdmini_bench.distill import estimate as estimation
from vdmini_bench.distill.recipe import Recipe
from vdmini_bench.errors import BenchError
from vdmini_bench.models.pruning import Pruning
from vdmini_bench.results.store import Store
from vdmini_bench.runs import distillation_dry_run as distill_plan
from vdmini_bench.runs.distillation import open_distillation
from vdmini_bench.runs.distillation_dry_run import DistillPlan, print_plan
from vdmini_bench.suites.distributions import Distributions

SUITE = Path(__file__).parents[2] / "suites" / "ucf101.yaml"
TEXT = """\
kind: distillation
name: small
teacher: embedded/svd
clip: {frames: 4, frames_per_second: 7, height: 32, width: 32}
data: {kind: folder, path: videos}
distill:
  steps: 2
  batch_size: 2
  learning_rate: 1e-4
"""
SMALL = (
    "dataset.train_clips=4", "dataset.drawn_test_per_group=1", "protocol.clips_per_block=4", "distill.steps=2",
    "distill.batch_size=2", "protocol.frames=9",
)  # fmt: skip


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments], catch_exceptions=False)


def overrides(*settings: str) -> list[str]:
    return [part for setting in settings for part in ("--set", setting)]


@pytest.fixture
def configuration(tmp_path: Path) -> Path:
    write_video(tmp_path / "videos" / "a.mkv", draw_clip("Rise", 1, 0).frames[:4], 7)
    (tmp_path / "videos" / "captions.csv").write_text("file,caption\na.mkv,a disc\n")
    (tmp_path / "small.yaml").write_text(TEXT, encoding="utf-8")
    return tmp_path / "small.yaml"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (("data.path=absent",), "absent: no such folder"),
        (("data.captions=absent.csv",), "absent.csv: cannot be read"),
        (("data={kind: webdataset, shards: 'no-*.tar'}",), "no such shard"),
        (("data={kind: generated, prompts: absent.txt, steps: 1}",), "absent.txt: cannot be read"),
        (("data={kind: generated, images: videos, steps: 1}",), "holds no images"),
        (("data={kind: generated, images: a, prompts: b, steps: 1}",), "give one"),
        (("distill.task=edn",), "did you mean 'edm'"),
        (("teacher=no/such/model",), "no folder that exists, and no hub id"),
        (("teacher=no-such/model",), "nothing is fetched unasked: add --download"),
        (("plan=vdmin",), "did you mean 'vdmini'"),
        (("plan=absent.json",), "absent.json"),
        (("plan=keep:Dual=3",), "plan: "),
        (("channels=depgraph-l3", "distill.lambda_icd=0"), "did you mean 'depgraph-l2'"),
        (("distill.micro_batch_size=3",), "micro_batch_size 3 does not divide"),
    ],
)
def test_what_is_wrong_ends_with_code_2_and_says_what_to_do(
    configuration: Path, settings: tuple[str, ...], said: str
) -> None:
    results = configuration.parent / "results"
    done = invoke("distill", configuration, "--results", results, *overrides(*settings))
    assert done.exit_code == 2, done.output
    assert said in done.output
    assert not list(results.glob("work/*")), "nothing was run"


@pytest.mark.parametrize(
    ("files", "asked", "expected"),
    [
        # CPUs are slow in the float16 of the embedded teacher.
        (torch.float16, (), "float32"),
        (torch.bfloat16, (), "bfloat16"),
        (torch.bfloat16, ("dtype=float32",), "float32"),
    ],
)
def test_the_number_format_is_that_of_the_teachers_files_unless_told(
    configuration: Path, files: torch.dtype, asked: tuple[str, ...], expected: str
) -> None:
    teacher = configuration.parent / "teacher"
    shutil.copytree(EMBEDDED["embedded/svd"], teacher)
    for file in teacher.rglob("*.safetensors"):
        save_file({name: value.to(files) for name, value in load_file(file).items()}, file, {"format": "pt"})
    chosen = load_distillation(configuration, overrides=("teacher=teacher", *asked))
    prepared = open_distillation(chosen, configuration.parent / "results", write=False).context
    assert prepared.recipe("").dtype == expected


def test_device_dtype_and_download_reach_a_distillation(configuration: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    results = configuration.parent / "results"
    done = invoke("distill", configuration, "--results", results, "--device", "cuda:99")
    assert done.exit_code == 6, done.output
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(configuration.parent / "hub"))
    asked: list[str] = []

    def listed(self: object, name: str) -> list[str]:
        asked.append(name)
        raise OSError("no connection")

    monkeypatch.setattr("huggingface_hub.HfApi.list_repo_files", listed)
    for command in (("distill", configuration), ("distill", SUITE), ("run", SUITE)):
        away = (*command, "--results", results, "--set", "teacher=owner/model")
        done = invoke(*away)
        assert done.exit_code == 2, done.output
        assert "--download" in done.output
        assert not asked
        done = invoke(*away, "--download")
        assert done.exit_code == 2, done.output
        assert "cannot fetch 'owner/model' (OSError: no connection)" in done.output
        assert asked.pop() == "owner/model"
    told = invoke("distill", configuration, "--results", results, "--dtype", "bfloat15")
    assert told.exit_code == 2, told.output
    seen: list[str] = []
    monkeypatch.setattr(
        "vdmini_bench.runs.distillation_dry_run.plan_distillation",
        lambda asked, timing: (_ for _ in ()).throw(BenchError(asked.context.recipe("").dtype)),
    )
    for dtype in ("bfloat16", "float16"):
        seen.append(invoke("distill", configuration, "--results", results, "--dry-run", "--dtype", dtype).stderr)
    assert seen == ["error: bfloat16\n", "error: float16\n"]


def test_a_results_folder_that_cannot_be_is_refused_before_any_work(configuration: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = invoke("distill", configuration, "--results", tmp_path / "file" / "results")
    assert done.exit_code == 4
    assert "choose another folder with --results" in done.output


def test_a_plan_estimates_memory_and_time_and_writes_nothing(
    configuration: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results, made = configuration.parent / "results", list[DistillPlan]()
    show = distill_plan.print_plan

    def record(plan: DistillPlan, price_per_hour: float | None) -> None:
        made.append(plan)
        show(plan, price_per_hour)

    monkeypatch.setattr(distill_plan, "print_plan", record)
    smaller = ("--set", "clip.frames=2")
    done = invoke("distill", configuration, "--results", results, "--dry-run", "--price-per-hour", 2, *smaller)
    assert done.exit_code == 0, done.output
    assert "it fits" in done.stdout
    assert " s a step, about " in done.stdout
    assert "at 2 an hour" in done.stdout
    assert not results.exists()
    (plan,) = made
    assert plan.steps == (("encode", False), ("prune", False), ("distill", False))
    (memory,) = plan.memory
    # Teacher, student, gradients, AdamW's two moments and the average, in float32: of 11.03 and 6.85 million weights.
    assert memory.estimate.peak_bytes > memory.estimate.held_bytes > 4 * (11.0e6 + 4 * 6.8e6)
    assert memory.estimate.held_bytes < 4 * (11.1e6 + 5 * 6.9e6) * 1.05
    assert plan.step_seconds is not None
    assert plan.step_seconds > 0
    assert plan.hours == pytest.approx((2 * plan.step_seconds + (plan.encode_seconds or 0)) / 3600)


def unpruned() -> Recipe:
    """A training of the embedded teacher whole."""
    specification = DistillSpec(steps=1, batch_size=2, learning_rate=1e-4)
    return Recipe(
        teacher=str(EMBEDDED["embedded/svd"]), teacher_sha256="", pruning=Pruning("none"), lora=None, dtype="float32",
        clips=lambda model, folder: pytest.fail("no clips are needed"), count=1, frames=1, height=8, width=8,
        encoding=EncodeSettings(7), distill=specification,
    )  # fmt: skip


@pytest.mark.parametrize(("limit", "fits_with"), [(100, 0), (60, 1), (30, 2), (15, 3), (1, None)])
def test_ever_more_frugal_settings_are_tried_until_one_fits(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], limit: int, fits_with: int | None
) -> None:
    """Each saving halves what a step takes, of 80 bytes; nine tenths of the limit may be used."""

    def step(
        teacher: object, plan: object, shapes: object, task: object, settings: DistillSettings, **more: object
    ) -> Estimate:
        saved = (settings.micro_batch_size == 1, settings.gradient_checkpointing, settings.mixed_precision == "bf16")
        return Estimate(held_bytes=1, peak_bytes=80 // 2 ** sum(saved), step_flops=1)

    monkeypatch.setattr(estimation, "estimate_step", step)
    recipe = unpruned()
    found = estimation.estimate_memory(recipe, load_model(recipe.teacher, device="meta"), {}, 1, limit)
    assert [each.fits for each in found] == [number == fits_with for number in range(len(found))]
    assert len(found) == (4 if fits_with is None else fits_with + 1)
    steps = (("encode", True), ("prune", True), ("distill", False))
    print_plan(DistillPlan(steps, True, "cpu", 1, False, limit, 1, tuple(found)), None)
    shown = capsys.readouterr().out
    assert "begun" in shown
    assert ("it fits" in shown) == (fits_with == 0)
    assert ("none of these fits" in shown) == (fits_with is None)
    assert "time: not measured" in shown
    if fits_with == 2:
        assert "--set distill.micro_batch_size=1 --set distill.gradient_checkpointing=true: 0.00 GiB, fits" in shown


def test_a_process_with_a_shard_is_asked_for_no_more_than_that(monkeypatch: pytest.MonkeyPatch) -> None:
    step = Estimate(held_bytes=70, peak_bytes=80, step_flops=1, shares=((20, 60), (30, 0)), gathered_bytes=5)
    monkeypatch.setattr(estimation, "estimate_step", lambda *asked, **more: step)
    recipe = unpruned()
    teacher = load_model(recipe.teacher, device="meta")
    (shard,) = estimation.estimate_memory(recipe, teacher, {}, 4, 45, sharded=True)
    assert (shard.peak_bytes, shard.fits) == (40, True)
    whole = estimation.estimate_memory(recipe, teacher, {}, 4, 45)
    assert [(each.peak_bytes, each.fits) for each in whole] == [(80, False)] * 4


def test_a_suite_distils_the_jobs_that_run_finds_done(tmp_path: Path) -> None:
    arguments = ("distill", SUITE, "--profile", "smoke", *overrides(*SMALL), "--results", tmp_path)
    done = invoke(*arguments, "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["jobs"]["ran"] == ["prune pruned", "encode", "distill student"]
    context = Distributions(load_suite(SUITE, "smoke", SMALL)).open(Store(tmp_path), remember=False)
    assert {name for name in context.jobs if context.is_done(name)} == {"prune pruned", "encode", "distill student"}
    planned = json.loads(invoke(*arguments, "--dry-run", "--json").stdout)
    assert [step["done"] for step in planned["steps"]] == [True] * 3
    assert planned["memory"] == []
    assert "all is done" in invoke(*arguments, "--dry-run").stdout


def test_a_suites_row_is_chosen_by_its_name(tmp_path: Path, configuration: Path) -> None:
    more = ("--set", "models.other={plan: uniform, distill: {}}")
    arguments = ("distill", SUITE, "--profile", "smoke", *overrides(*SMALL), *more, "--results", tmp_path, "--dry-run")
    found = json.loads(invoke(*arguments, "--no-timing", "--model", "other", "--json").stdout)
    assert [step["name"] for step in found["steps"]] == ["encode", "prune other", "distill other"]
    wrong = invoke(*arguments, "--model", "pruned")
    assert wrong.exit_code == 2
    assert "no such model of suite 'ucf101' is distilled; those that are: student, other" in wrong.output
    refused = invoke("distill", configuration, "--results", tmp_path, "--model", "student")
    assert refused.exit_code == 2
    assert "one student: leave it out" in refused.output


def test_a_suites_missing_data_is_listed_without_what_only_scores_need(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("VDMINI_CACHE", "HF_HOME", "HF_HUB_CACHE"):
        monkeypatch.setenv(name, str(tmp_path / "cache"))
    done = invoke("distill", SUITE, "--profile", "paper", "--results", tmp_path / "results")
    assert done.exit_code == 2
    assert "assets import ucf101" in done.output
    assert "pytorch-fid-inception" not in done.output
    assert not (tmp_path / "results").exists()
