"""Both experts of a pipeline are distilled, one after the other, each from its own teacher and at its own levels."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from diffusers import WanPipeline
from safetensors.torch import load_file
from tiny_clips import same, weights
from tiny_transformers import TINY
from torch import nn

from vdmini.distill import DistillSettings, StepLosses, distill
from vdmini.latents import LatentCache
from vdmini.models.loading import load_model
from vdmini.models.registry import VideoModel
from vdmini.plan import PruningPlan
from vdmini.prune import apply_plan
from vdmini.sample import sample_clips
from vdmini.tasks import EpsilonTask, FlowTask
from vdmini_bench.cli import main
from vdmini_bench.data.video import write_video
from vdmini_bench.distill import trainer
from vdmini_bench.distill.loss_log import logged

BOUNDARY = 0.9
STEPS = 2
TEXT = f"""\
kind: distillation
name: small
teacher: teacher
plan: every-nth:n=2
clip: {{frames: 5, frames_per_second: 8, height: 16, width: 32}}
data: {{kind: folder, path: videos}}
distill:
  steps: {STEPS}
  batch_size: 2
  learning_rate: 1e-3
  checkpoint_every: 1
"""


def run(folder: Path, *more: object) -> Result:
    arguments = ["distill", folder / "small.yaml", "--results", folder / "results", "--json", *more]
    return CliRunner().invoke(main, [str(argument) for argument in arguments], catch_exceptions=False)


def prepare(folder: Path) -> Path:
    """A teacher of two experts, two captioned videos, and a configuration."""
    tiny = TINY["wan"]
    pipeline = tiny.build_pipeline(tiny.build_denoiser())
    second = tiny.build_denoiser()
    with torch.no_grad():
        for weight in second.parameters():
            weight.mul_(0.9)
    pipeline.register_modules(transformer_2=second)
    pipeline.register_to_config(boundary_ratio=BOUNDARY)
    pipeline.save_pretrained(folder / "teacher")
    rows = ["file,caption", "0.mkv,a cat", "1.mkv,a red dog runs"]
    for number in range(2):
        frames = np.random.default_rng(number).integers(0, 256, (5, 16, 32, 3), dtype=np.uint8)
        write_video(folder / "videos" / f"{number}.mkv", frames, 8)
    (folder / "videos" / "captions.csv").write_text("\n".join(rows) + "\n")
    (folder / "small.yaml").write_text(TEXT)
    return folder


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The distillation, done without a break."""
    folder = prepare(tmp_path_factory.mktemp("once"))
    done = run(folder)
    assert done.exit_code == 0, done.output
    return folder


def only(folder: Path, pattern: str) -> Path:
    (found,) = folder.glob(f"results/work/{pattern}")
    return found


@pytest.mark.parametrize(
    ("name", "lowest", "highest"), [("transformer", BOUNDARY, 1.0), ("transformer_2", 0.0, BOUNDARY)]
)
def test_each_expert_is_what_distilling_it_alone_at_its_levels_makes(
    name: str, lowest: float, highest: float, once: Path, tmp_path: Path
) -> None:
    teacher: nn.Module = getattr(load_model(once / "teacher").pipeline, name)
    pruned = only(once, "prune-*/student")
    plan = PruningPlan.from_json((pruned / "pruning_plan.json").read_text())
    student = apply_plan(teacher, plan)
    assert same(weights(student), load_file(pruned / name / "diffusion_pytorch_model.safetensors"))
    clips = LatentCache.open(only(once, "encode-*/latents"))
    settings = DistillSettings(steps=STEPS, batch_size=2, learning_rate=1e-3)
    task = FlowTask(shift=3.0, lowest=lowest, highest=highest)
    alone = distill(teacher, student, plan, clips, task, settings, tmp_path / "checkpoint.pt")
    made = only(once, "distill-*/student")
    assert same(weights(alone.student), load_file(made / name / "diffusion_pytorch_model.safetensors"))
    assert not same(weights(alone.student), load_file(pruned / name / "diffusion_pytorch_model.safetensors"))
    with (made.parent / "losses.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows] == [1, 2, 3, 4]
    mine = rows[:STEPS] if name == "transformer" else rows[STEPS:]
    assert [float(row["task"]) for row in mine] == [losses.task for losses in alone.losses]


def test_the_students_folder_samples_with_both(once: Path) -> None:
    model = load_model(only(once, "distill-*/student"))
    assert isinstance(model.pipeline, WanPipeline)
    assert [(each.name, each.lowest, each.highest) for each in model.experts] == [
        ("transformer", BOUNDARY, 1.0), ("transformer_2", 0.0, BOUNDARY)
    ]  # fmt: skip
    assert [each.denoiser.config.num_layers for each in model.experts] == [3, 3]
    clips = sample_clips(model.pipeline, TINY["wan"].requests, TINY["wan"].settings)
    assert len(clips) == 2
    summary = json.loads((only(once, "distill-*/summary.json")).read_text())
    assert (summary["steps"], summary["clips_seen"], summary["timed_steps"]) == (4, 8, 4)
    assert not [*only(once, "distill-*").glob("*.pt")]


def test_the_pipeline_asks_each_expert_at_its_own_levels_alone(once: Path) -> None:
    model = load_model(once / "teacher")
    assert model.pipeline is not None
    seen: dict[nn.Module, list[float]] = {}

    def look(network: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        seen.setdefault(network, []).extend(named["timestep"].tolist())

    for expert in model.experts:
        expert.denoiser.register_forward_pre_hook(look, with_kwargs=True)
    sample_clips(model.pipeline, TINY["wan"].requests, replace(TINY["wan"].settings, steps=8))
    for expert in model.experts:
        levels = [timestep / 1000 for timestep in seen[expert.denoiser]]
        assert expert.lowest <= min(levels) < max(levels) <= expert.highest


def test_a_kill_in_the_second_expert_loses_neither(once: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = prepare(tmp_path)

    @contextmanager
    def stopping(*arguments: Any) -> Iterator[Callable[[StepLosses], None]]:
        with logged(*arguments) as note:

            def stop_after_four(step: StepLosses) -> None:
                note(step)
                if step.step == STEPS + 2:
                    raise KeyboardInterrupt

            yield stop_after_four

    monkeypatch.setattr(trainer, "logged", stopping)
    assert run(folder).exit_code == 130
    monkeypatch.undo()
    assert {path.name for path in only(folder, "distill-*").glob("*.pt")} == {
        "checkpoint.pt", "transformer_2-checkpoint.pt"
    }  # fmt: skip
    done = run(folder)
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert (found["timed_steps"], found["jobs"]["ran"]) == (1, ["distill"])
    for name in ("transformer", "transformer_2"):
        ours, theirs = (
            load_file(only(each, "distill-*/student") / name / "diffusion_pytorch_model.safetensors")
            for each in (folder, once)
        )
        assert same(ours, theirs)
    assert only(folder, "distill-*/losses.csv").read_text() == only(once, "distill-*/losses.csv").read_text()


def test_a_dry_run_counts_both(tmp_path: Path) -> None:
    planned = json.loads(run(prepare(tmp_path), "--dry-run", "--no-timing").stdout)
    assert planned["training_steps"] == 2 * STEPS


def test_other_tasks_have_no_levels_of_an_expert() -> None:
    assert EpsilonTask().between(0.0, 1.0) == EpsilonTask()
    with pytest.raises(ValueError, match="trained by task 'flow', not by EpsilonTask"):
        EpsilonTask().between(0.0, 0.9)
    with pytest.raises(ValueError, match=r"between 0 and 1, not from 0\.9 to 0\.9"):
        FlowTask().between(0.9, 0.9)


def test_one_denoiser_is_for_all_levels() -> None:
    denoiser = TINY["wan"].build_denoiser()
    bare = VideoModel("here", "wan", denoiser, None, None)
    whole = VideoModel("here", "wan", denoiser, None, TINY["wan"].build_pipeline(denoiser))
    for model, name in ((bare, ""), (whole, "transformer")):
        (only_one,) = model.experts
        assert (only_one.name, only_one.denoiser, only_one.lowest, only_one.highest) == (name, denoiser, 0.0, 1.0)
