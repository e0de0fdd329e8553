"""Distilling a model of one's own data, as a user does: encoded, pruned and distilled, once."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
import tarfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from vdmini.distill import StepLosses
from vdmini.latents import LatentCache
from vdmini.models.loading import load_model
from vdmini.rules import make_plan
from vdmini_bench.cli import main
from vdmini_bench.config.distillation import load_distillation
from vdmini_bench.data.requests import drawn_requests
from vdmini_bench.data.synthetic import draw_clip
from vdmini_bench.data.video import read_frames, write_video
from vdmini_bench.distill import trainer
from vdmini_bench.distill.loss_log import logged
from vdmini_bench.runs.distillation import open_distillation

# diffusers' schedulers meet numpy 2 that way.
pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
)
TEXT = """\
kind: distillation
name: small
teacher: embedded/svd
plan: plan.json
clip: {{frames: 4, frames_per_second: 7, height: 32, width: 32, noise_strength: 0.0}}
data: {data}
distill:
  steps: 2
  batch_size: 2
  learning_rate: 1e-4
  checkpoint_every: 1
"""
FOLDER = "{kind: folder, path: videos}"


def distill(folder: Path, *more: object) -> Result:
    arguments = ["distill", folder / "small.yaml", "--results", folder / "results", *more]
    return CliRunner().invoke(main, [str(argument) for argument in arguments], catch_exceptions=False)


def distilled(folder: Path, *more: object) -> dict[str, Any]:
    result = distill(folder, "--json", *more)
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def write(folder: Path, data: str, more: str = "") -> None:
    (folder / "small.yaml").write_text(TEXT.format(data=data) + more, encoding="utf-8")


def losses(found: dict[str, Any]) -> list[dict[str, str]]:
    with Path(found["losses_file"]).open(newline="") as file:
        return list(csv.DictReader(file))


def latents(folder: Path) -> list[LatentCache]:
    return [LatentCache.open(path) for path in sorted(folder.glob("results/work/encode-*/latents"))]


def copied(once: Path, folder: Path, *stages: str) -> Path:
    """The clips and configuration of `once` in another folder, with the results of some of its stages."""
    shutil.copytree(once / "videos", folder / "videos")
    for file in ("small.yaml", "plan.json"):
        shutil.copy(once / file, folder)
    for stage in stages:
        for path in once.glob(f"results/work/{stage}-*"):
            shutil.copytree(path, folder / "results" / "work" / path.name)
    return folder


def prepared(folder: Path, *overrides: str) -> dict[str, bool]:
    """Which steps are done already."""
    asked = load_distillation(folder / "small.yaml", None, overrides)
    found = open_distillation(asked, folder / "results", write=False).context
    return {name: found.is_done(name) for name in found.jobs}


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four drawn clips with captions, distilled once; `output.txt` is what that printed."""
    folder = tmp_path_factory.mktemp("once")
    rows = ["file,caption"]
    for number in range(4):
        write_video(folder / "videos" / f"{number}.mkv", draw_clip("Rise", 1, number).frames[:4], 7)
        rows.append(f"{number}.mkv,clip {number}")
    (folder / "videos" / "captions.csv").write_text("\n".join(rows) + "\n")
    (folder / "plan.json").write_text(make_plan(load_model("embedded/svd", device="meta")).to_json())
    write(folder, FOLDER)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "__array__ implementation", DeprecationWarning)
        result = distill(folder, "--price-per-hour", 3)
    assert result.exit_code == 0, result.output
    (folder / "output.txt").write_text(result.stdout)
    return folder


def test_a_folder_of_captioned_videos_is_distilled_once(once: Path) -> None:
    printed = (once / "output.txt").read_text()
    assert "2 steps, 4 clips seen" in printed
    assert " at 3 an hour" in printed
    found = distilled(once)
    assert found["jobs"] == {"ran": [], "cached": ["encode", "prune", "distill"]}
    assert f"student: {found['student']}" in printed
    assert [row["step"] for row in losses(found)] == ["1", "2"]
    assert found["losses"]["task"] == pytest.approx(sum(float(row["task"]) for row in losses(found)) / 2)
    assert 0 < found["hours_per_1000_steps"] < 100
    student, teacher = load_model(found["student"]), load_model("embedded/svd", device="meta")
    assert student.pipeline is not None
    assert student.blocks.params < 0.7 * teacher.blocks.params
    assert latents(once)[0].names == ("0.mkv", "1.mkv", "2.mkv", "3.mkv")
    assert json.loads((Path(found["student"]) / "provenance.json").read_text())["clips"] == 4


def test_only_what_decides_a_result_makes_it_anew(once: Path, tmp_path: Path) -> None:
    done = {"encode": True, "prune": True, "distill": True}
    assert prepared(once, "distill.micro_batch_size=1", "distill.gradient_checkpointing=true", "name=other") == done
    assert prepared(once, "distill.seed=1") == {**done, "distill": False}
    assert prepared(once, "clip.frames=3") == {"encode": False, "prune": True, "distill": False}
    assert prepared(once, "plan=bk-small") == {"encode": True, "prune": False, "distill": False}
    # The same clips in another place are the same clips; another caption is other data, and so are other bytes.
    moved = copied(once, tmp_path, "encode", "prune", "distill")
    assert prepared(moved) == done
    captions = moved / "videos" / "captions.csv"
    before = captions.read_text()
    captions.write_text(before.replace("clip 3", "a red disc"))
    assert prepared(moved)["encode"] is False
    captions.write_text(before)
    shutil.copy(moved / "videos" / "0.mkv", moved / "videos" / "1.mkv")
    assert prepared(moved)["encode"] is False


def test_an_interrupted_distillation_goes_on_and_ends_the_same(
    once: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = copied(once, tmp_path, "encode", "prune")

    @contextmanager
    def stopping(*arguments: Any) -> Iterator[Callable[[StepLosses], None]]:
        with logged(*arguments) as note:

            def stop_after_two(step: StepLosses) -> None:
                note(step)
                if step.step == 2:
                    raise KeyboardInterrupt

            yield stop_after_two

    monkeypatch.setattr(trainer, "logged", stopping)
    stopped = distill(folder)
    assert stopped.exit_code == 130
    assert "the same command continues" in stopped.output
    monkeypatch.undo()
    found = distilled(folder)
    assert found["jobs"] == {"ran": ["distill"], "cached": ["encode", "prune"]}
    assert found["timed_steps"] == 1, "the first step was in the checkpoint"
    assert losses(found) == losses(distilled(once))


def test_an_unreadable_video_is_named_or_left_out(once: Path, tmp_path: Path) -> None:
    folder = copied(once, tmp_path, "prune")
    (folder / "videos" / "2.mkv").write_bytes((folder / "videos" / "2.mkv").read_bytes()[:200])
    result = distill(folder, "--set", "distill.steps=1")
    assert result.exit_code == 3
    assert "2.mkv" in result.output
    found = distilled(folder, "--set", "distill.steps=1", "--set", "data.skip_unreadable=true")
    assert found["jobs"]["ran"] == ["encode", "distill"]
    (cache,) = latents(folder)
    assert cache.names == ("0.mkv", "1.mkv", "3.mkv")


def test_shards_are_distilled_from(once: Path, tmp_path: Path) -> None:
    folder = copied(once, tmp_path, "prune")
    for number in range(2):
        (folder / f"{number}.txt").write_text(f"clip {number}")
        with tarfile.open(folder / f"shard-{number}.tar", "w") as tar:
            tar.add(folder / "videos" / f"{number}.mkv", f"{number}.mkv")
            tar.add(folder / f"{number}.txt", f"{number}.txt")
    write(folder, "{kind: webdataset, shards: 'shard-{0..1}.tar', clips_per_shard: 1}")
    distilled(folder, "--set", "distill.steps=1")
    (cache,) = latents(folder)
    assert cache.names == ("shard-0.tar/0", "shard-1.tar/1")
    assert len(list(cache.folder.glob("0*.safetensors"))) == 2
    assert all(prepared(folder, "distill.steps=1").values())


def test_without_data_the_teacher_draws_its_own(once: Path, tmp_path: Path) -> None:
    folder = copied(once, tmp_path, "prune")
    (folder / "pictures").mkdir()
    for number, request in enumerate(drawn_requests(2)):
        request.picture().save(folder / "pictures" / f"{number}.png")
    preview = "  preview_every: 2\npreview: {images: pictures, steps: 1, seeds: 5}\n"
    write(folder, "{kind: generated, images: pictures, steps: 1, seeds: '0,1'}", preview)
    found = distilled(folder)
    (cache,) = latents(folder)
    assert cache.names == ("0-0", "0-1", "1-0", "1-1")
    assert read_frames(cache.folder.parent / "clips" / "1-0.mkv", 4).shape == (4, 32, 32, 3)
    shown = Path(found["student"]).parent / "previews"
    assert [path.relative_to(shown).as_posix() for path in sorted(shown.rglob("*.mp4"))] == [
        "step-000002/0-5.mp4",
        "step-000002/1-5.mp4",
    ]
    assert all(prepared(folder, "preview.seeds=6").values())
    assert prepared(folder, "data.steps=2") == {"encode": False, "prune": True, "distill": False}


def test_two_processes_make_the_same_student(once: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m"]
    arguments = ["vdmini_bench", "distill", once / "small.yaml", "--results", tmp_path, "--json"]
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, *map(str, arguments)], capture_output=True, text=True, env=environment, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    together = json.loads(done.stdout)
    assert (together["processes"], together["jobs"]["ran"]) == (2, ["encode", "prune", "distill"])
    for one, two in zip(losses(distilled(once)), losses(together), strict=True):
        assert {name: float(value) for name, value in one.items()} == pytest.approx(
            {name: float(value) for name, value in two.items()}, rel=1e-3
        )
