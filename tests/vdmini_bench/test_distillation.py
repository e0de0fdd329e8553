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
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import torch
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


@pytest.fixture(scope="module")
def pair(once: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What two processes of this machine make of the same, a file for each encoded clip."""
    return together(once, tmp_path_factory.mktemp("pair"), [[]], "--main_process_port=0")


def together(once: Path, results: Path, hosts: list[list[str]], *options: str, **variables: str) -> dict[str, Any]:
    """Distil in two processes, shared out over the hosts that these beginnings of commands lead to."""
    several = [f"--num_machines={len(hosts)}", "--num_processes=2", "--multi_gpu", "--mixed_precision=no", *options]
    distil = ["-m", "vdmini_bench", "distill", once / "small.yaml", "--set", "data.clips_per_shard=1"]
    launches = []
    for rank, host in enumerate(hosts):
        launch = [sys.executable, "-m", "accelerate.commands.launch", f"--machine_rank={rank}", *several]
        # As on a machine of its own, what it keeps for itself is not the others'.
        own = {name: str(results / f"of-host-{rank}") for name in ("HF_HOME", "VDMINI_CACHE")}
        environment = {**os.environ, "OMP_NUM_THREADS": "1", **own, **variables}
        command = [*host, *map(str, [*launch, "--dynamo_backend=no", *distil, "--results", results, "--json"])]
        launches.append(
            subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
        )
    try:
        printed = [each.communicate(timeout=300) for each in launches]
    finally:
        for each in launches:
            each.kill()
    assert not any(each.returncode for each in launches), printed
    found: dict[str, Any] = json.loads(printed[0][0])
    assert not any(out for out, _ in printed[1:]), "the first process alone speaks"
    assert (found["processes"], found["jobs"]["ran"]) == (2, ["encode", "prune", "distill"])
    return found


def test_two_processes_make_the_same_student(once: Path, pair: dict[str, Any]) -> None:
    for one, two in zip(losses(distilled(once)), losses(pair), strict=True):
        assert {name: float(value) for name, value in one.items()} == pytest.approx(
            {name: float(value) for name, value in two.items()}, rel=1e-3
        )
    whole = latents(once)[0]
    (folder,) = Path(pair["student"]).parents[1].glob("encode-*/latents")
    shared = LatentCache.open(folder)
    assert shared.names == whole.names
    values, expected = (each.batch(torch.arange(4)) for each in (shared, whole))
    assert all(torch.equal(values[name], expected[name]) for name in expected)


@pytest.fixture
def hosts() -> Iterator[list[list[str]]]:
    """What begins a command on one of two hosts with a cable between them, by which alone they are reached."""
    names = [f"vdmini-{os.getpid()}-{number}" for number in (1, 2)]
    first, second = names
    commands = [
        *(f"netns add {name}" for name in names),
        f"link add eth0 netns {first} type veth peer name eth0 netns {second}",
        *(f"-n {name} addr add 10.77.0.{number}/24 dev eth0" for number, name in enumerate(names, 1)),
        *(f"-n {name} link set {device} up" for name in names for device in ("lo", "eth0")),
    ]
    try:
        for each in commands:
            subprocess.run(["ip", *each.split()], check=True, capture_output=True, text=True)
        yield [["ip", "netns", "exec", name] for name in names]
    except (FileNotFoundError, subprocess.CalledProcessError) as error:
        pytest.skip(f"needs root, Debian's iproute2 and leave to make network namespaces: {error}")
    finally:
        with suppress(FileNotFoundError):
            for name in names:
                subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)


def test_two_hosts_make_the_student_of_two_processes_of_one(
    once: Path, pair: dict[str, Any], hosts: list[list[str]], tmp_path: Path
) -> None:
    address = ("--main_process_ip=10.77.0.1", "--main_process_port=29500")
    apart = together(once, tmp_path, hosts, *address, GLOO_SOCKET_IFNAME="eth0")
    folders = [Path(each["student"]).parents[1] for each in (pair, apart)]
    files = [
        {path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*.safetensors"))}
        for folder in folders
    ]
    assert files[0] == files[1]
    assert len(files[0]) > 4
    assert losses(pair) == losses(apart)
