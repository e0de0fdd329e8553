"""What a suite would take on a named card: from sizes alone, and refused where it cannot fit."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed._tools.mem_tracker import MemTracker

from vdmini import load_model
from vdmini.conditioning import conditioning_of
from vdmini.cost import count_flops, count_parameters
from vdmini.distill import DistillSettings
from vdmini.distill.estimate import Estimate, estimate_step
from vdmini.rules import make_plan
from vdmini_bench.cli import main
from vdmini_bench.config.suite import Suite, load_suite
from vdmini_bench.config.vbench import VBenchSuite, load_any_suite
from vdmini_bench.distill import estimate
from vdmini_bench.distill.trainer import settings_of, task_of
from vdmini_bench.models.inspect import inspect_model
from vdmini_bench.results.store import Store
from vdmini_bench.runs import on_card
from vdmini_bench.runs.on_card import stages_on
from vdmini_bench.speed import cards
from vdmini_bench.speed.cards import Card
from vdmini_bench.speed.scopes import (
    ClipSize,
    Decoding,
    Encoding,
    decode_flops,
    decode_latents,
    encode_pixels,
    latent_size,
)

SUITE = Path(__file__).parents[2] / "suites" / "ucf101.yaml"


def dry_run(folder: Path, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["run", str(SUITE), "--results", str(folder / "results"), *arguments])


@pytest.mark.slow
def test_a_distillation_takes_what_a_step_on_tensors_without_values_does(tmp_path: Path) -> None:
    rows = "{teacher: {}, fewer steps: {sample: {steps: 3}}, student: {plan: vdmini, distill: {}}}"
    suite = load_suite(SUITE, "smoke", (f"models={rows}",))
    stages = {stage.job: stage for stage in stages_on(suite, Store(tmp_path / "none"), "a100-40gb")}
    assert [*stages] == [
        "encode", "distill student", "sample teacher", "sample fewer steps", "sample student",
    ]  # fmt: skip
    teacher, distill = load_model("embedded/svd", device="meta"), suite.profile.models["student"].distill
    assert distill is not None
    shapes = conditioning_of(teacher.denoiser).clip_shapes(
        teacher.denoiser, latent_size(teacher, ClipSize(10, 32, 32, 4))
    )
    task = task_of(distill, teacher.denoiser)
    step = estimate_step(teacher.denoiser, make_plan(teacher, "vdmini"), shapes, task, settings_of(distill))
    found = stages["distill student"]
    assert found.peak_bytes == step.peak_bytes
    assert found.seconds == pytest.approx(step.step_flops * distill.steps / (0.4 * 156e12))
    # Fewer steps, and fewer blocks, take less time; sampling holds at least the weights.
    assert stages["sample fewer steps"].seconds < stages["sample teacher"].seconds
    assert stages["sample student"].seconds < stages["sample teacher"].seconds
    assert stages["sample teacher"].peak_bytes > 4 * count_parameters(teacher.denoiser)
    # Latents of the drawn clips, and the weights, moments and gradients that a checkpoint has.
    assert stages["encode"].disk_bytes == 4 * 40 * sum(math.prod(shape) for shape in shapes.values())
    assert stages["distill student"].disk_bytes > 12 * count_parameters(teacher.denoiser) / 2
    assert not (tmp_path / "none").exists()


def test_what_does_not_fit_is_refused_with_the_setting_that_makes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def step(*arguments: object, **more: object) -> Estimate:
        (settings,) = [each for each in arguments if isinstance(each, DistillSettings)]
        return Estimate(1, 2**30 * (settings.micro_batch_size or settings.batch_size), 10**12)

    monkeypatch.setattr(estimate, "estimate_step", step)
    # What sampling takes is other tests' matter, and slow to find.
    monkeypatch.setattr(on_card, "_peak", lambda *_: 1)
    monkeypatch.setitem(cards.CARDS, "small", Card(2, 100, 50, 1))
    rows = "models={teacher: {}, student: {plan: vdmini, distill: {}}}"
    options = ("--profile", "smoke", "--dry-run", "--card", "small", "--set", rows)
    done = dry_run(tmp_path, *options, "--json")
    assert done.exit_code == 2, done.output
    (training,) = [stage for stage in json.loads(done.stdout)["on_card"] if not stage["fits"]]
    assert (training["job"], training["advice"]) == ("distill student", "--set distill.micro_batch_size=1")
    again = dry_run(tmp_path, *options, "--set", "distill.micro_batch_size=1")
    assert again.exit_code == 0, again.output
    assert "on small, predicted at 40% of its peak" in again.stdout


def test_a_teacher_that_is_not_here_has_its_published_sizes(tmp_path: Path) -> None:
    rows = (
        "--set",
        "models={teacher: {}}",
        "--set",
        "published=[]",
        "--set",
        "sample.height=64",
        "--set",
        "sample.width=64",
    )
    done = dry_run(tmp_path, "--profile", "paper", *rows, "--dry-run", "--card", "h100-80gb", "--json")
    assert done.exit_code == 0, done.output
    (stage,) = json.loads(done.stdout)["on_card"]
    assert stage["disk_bytes"] == 1536 * 14 * 64 * 64 * 2
    # SVD's 1.52 billion weights, its VAE's 98 million and its image encoder's 632 million, in half precision.
    assert 2 * 2.25e9 < stage["peak_bytes"] < 1.1 * 2 * 2.25e9


@pytest.mark.parametrize(
    ("file", "profile", "name"),
    [
        ("ucf101", "paper", "svd"), ("vbench_t2v", "paper", "t2v-turbo-v2"),
        ("vbench_t2v", "hunyuanvideo", "hunyuanvideo"),
    ],
)  # fmt: skip
def test_a_published_teacher_takes_what_inspect_and_a_pass_say(
    tmp_path: Path, file: str, profile: str, name: str
) -> None:
    suite = load_any_suite(SUITE.with_name(f"{file}.yaml"), profile, ("models={teacher: {}}", "published=[]"))
    assert isinstance(suite, Suite | VBenchSuite)
    (stage,) = stages_on(suite, Store(tmp_path), "h100-80gb")
    model = load_model(name, random_weights=True, device="meta")
    graph = inspect_model(name, None).teacher
    sample = suite.profile.models["teacher"].sample
    size = ClipSize(suite.profile.frames, sample.height, sample.width, sample.steps)
    passes = sample.steps * (2 if name == "svd" else 1)
    # Every published size is the one that `inspect` counts at.
    assert graph.input == latent_size(model, size)
    clips = stage.seconds * 0.4 * 989e12 / (passes * graph.flops + decode_flops(model, size))
    # All official prompts, though they are not here.
    assert clips == pytest.approx(6220 if file == "vbench_t2v" else 1536, rel=1e-6)
    assert stage.peak_bytes > 2 * graph.params


@pytest.mark.parametrize("name", ["svd", "latte-1", "ltx-video-2b-0.9.1", "ltx-video-2b-0.9.5", "allegro"])
def test_a_vae_of_frames_of_clips_or_of_a_timestep_can_be_counted(name: str) -> None:
    model, size = load_model(name, random_weights=True, device="meta"), ClipSize(24, 320, 320, 1)
    size = replace(size, frames=25) if name.startswith("ltx") else size
    assert decode_flops(model, size) > 1e12
    assert count_flops(Encoding(model.vae), {"pixels": encode_pixels(model, size)}) > 1e12  # type: ignore[arg-type]


def test_the_worst_moment_of_a_published_teacher_is_what_the_tracker_of_torch_counts(tmp_path: Path) -> None:
    suite = load_any_suite(SUITE.with_name("vbench_t2v.yaml"), "paper", ("models={teacher: {}}", "published=[]"))
    assert isinstance(suite, VBenchSuite)
    (stage,) = stages_on(suite, Store(tmp_path), "h100-80gb")
    model = load_model("t2v-turbo-v2", random_weights=True, device="meta")
    assert model.vae is not None
    latents = decode_latents(model, ClipSize(16, 320, 512, 16)).shape
    decoding = Decoding(model.vae.to(torch.bfloat16), 16)
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
        decoding, tracker = decoding.to_empty(device="cpu"), MemTracker()
        clip = torch.zeros(latents, dtype=torch.bfloat16)
        tracker.track_external(decoding, clip)
        with tracker:
            decoding(clip)
    counted = tracker.get_tracker_snapshot("peak")[torch.device("cpu")]["Total"]
    # Beside it lie the denoiser and OpenCLIP's text tower without its last layer.
    assert stage.peak_bytes == pytest.approx(counted + 2 * (count_parameters(model.denoiser) + 340e6), rel=0.05)


def test_what_no_setting_makes_fit_is_cut_into_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gib = 2**30
    found = Estimate(7 * gib, 8 * gib, 10**12, shares=((2 * gib, 6 * gib),), gathered_bytes=gib // 4)
    monkeypatch.setattr(estimate, "estimate_step", lambda *_, **__: found)
    monkeypatch.setattr(on_card, "_peak", lambda *_: 1)
    monkeypatch.setitem(cards.CARDS, "small", Card(3, 100, 50, 1))
    rows = "models={teacher: {}, student: {plan: vdmini, distill: {}}}"
    done = dry_run(tmp_path, "--profile", "smoke", "--dry-run", "--card", "small", "--set", rows, "--json")
    (training,) = [stage for stage in json.loads(done.stdout)["on_card"] if not stage["fits"]]
    # 6 GiB in shards beside 2.25 GiB of each card's own, in 90 % of 3 GiB: 14, and a batch of four divides by none.
    assert training["advice"].startswith("fewer frames")
    monkeypatch.setitem(cards.CARDS, "small", Card(4.2, 100, 50, 1))
    done = dry_run(tmp_path, "--profile", "smoke", "--dry-run", "--card", "small", "--set", rows)
    assert done.exit_code == 2
    assert "--num_processes 4" in "".join(done.stdout.split("\n"))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--card", "h100-80gb"), "--card is for a dry run"),
        (("--dry-run", "--card", "h100"), "--card h100: choose one of h200, h100-80gb"),
        (("--dry-run", "--card", "h200", "--set", "teacher=some/model"), "some/model is not here"),
    ],
)
def test_a_card_that_means_nothing_is_refused(tmp_path: Path, options: tuple[str, ...], said: str) -> None:
    done = dry_run(tmp_path, "--profile", "smoke", *options)
    assert done.exit_code == 2
    assert said in done.stderr
