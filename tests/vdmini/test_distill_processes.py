"""Two processes train the student that one trains, with whole weights or with shards, and survive the same kills."""

from __future__ import annotations

import dataclasses
import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import forked
import numpy as np
import pytest
import torch
from diffusers import (
    AutoencoderKLTemporalDecoder,
    EulerDiscreteScheduler,
    StableVideoDiffusionPipeline,
    UNetSpatioTemporalConditionModel,
)
from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModelWithProjection

import vdmini
from vdmini.conditioning.base import EncodeSettings, TrainingClip
from vdmini.distill import DistillSettings
from vdmini.distill.processes import Launched
from vdmini.latents import encode_to_cache
from vdmini.models.svd import SVD_UNET_CONFIG, SVD_VAE_CONFIG
from vdmini.rules import plan_removing

# Two resolutions, so that no map is 1x1: normalising two values there multiplies rounding errors a thousandfold.
TWO_STAGES = {
    "sample_size": 8,
    "down_block_types": ("CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"),
    "up_block_types": ("UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"),
    "block_out_channels": (32, 64),
    "num_attention_heads": (1, 2),
    "cross_attention_dim": 32,
    "addition_time_embed_dim": 8,
    "projection_class_embeddings_input_dim": 24,
    "num_frames": 2,
}
VISION = CLIPVisionConfig(
    hidden_size=32,
    intermediate_size=64,
    projection_dim=32,
    num_hidden_layers=1,
    num_attention_heads=2,
    image_size=224,
    patch_size=32,
)
STEPS, KEPT = 8, 4
SETTINGS = dataclasses.asdict(
    DistillSettings(
        steps=STEPS, batch_size=4, learning_rate=1e-5, head_learning_rate=1e-6, lambda_output=0.5, checkpoint_every=KEPT
    )
)
# All that changes how gradients come about; the last two must not change the result.
THOROUGH = {**SETTINGS, "steps": 3, "lambda_r1": 0.1, "balance": "adaptive"}
SPARING = {**THOROUGH, "gradient_checkpointing": True, "micro_batch_size": 1}
TOLERANCE = 1e-5
DDP = ("--multi_gpu", "--num_processes=2")
FSDP = ("--use_fsdp", "--fsdp_version=2", "--num_processes=2")
LAUNCHES = pytest.mark.parametrize(
    "launch", [pytest.param("ddp", id="ddp"), pytest.param("fsdp", id="fsdp", marks=pytest.mark.slow)]
)

# Distils once for each run it is given, and writes what each process saw of it into the run's folder.
CHILD = """
import hashlib, json, os, shutil, sys
from pathlib import Path
import torch
from diffusers import UNetSpatioTemporalConditionModel
from vdmini.distill import DistillSettings, distill
from vdmini.distill.processes import Launched
from vdmini.distill.training import Training
from vdmini.latents import LatentCache
from vdmini.plan import PruningPlan
from vdmini.prune import apply_plan
from vdmini.tasks import make_task

source, rank = Path(sys.argv[1]), os.environ.get("RANK", "0")

def local(tensor):
    return (tensor.to_local() if hasattr(tensor, "to_local") else tensor).numel()

def fingerprint(network):
    digest = hashlib.sha256()
    for name, value in network.state_dict().items():
        digest.update(name.encode() + value.cpu().numpy().tobytes())
    return digest.hexdigest()

runs = json.loads(sys.argv[2])
if rank == "0":
    (Path(runs[0]["folder"]) / "environment.json").write_text(json.dumps(dict(os.environ)))
for run in runs:
    folder, settings = Path(run["folder"]), DistillSettings(**run["settings"])
    teacher = UNetSpatioTemporalConditionModel.from_pretrained(source / "teacher").eval()
    plan = PruningPlan.from_json((source / "plan.json").read_text())
    student, task, clips = apply_plan(teacher, plan), make_task("edm", {}), LatentCache.open(source / "cache")
    seen = {"steps": [], "previews": {}}

    def on_step(losses):
        print("step", losses.step, flush=True)
        seen["steps"].append(losses.step)
        if losses.step == run.get("fails_at"):
            raise OSError("no space left on device")
        if losses.step == run.get("kept", -1) + 1:
            shutil.copy(folder / "checkpoint.pt", folder / "kept.pt")

    def on_preview(step, average):
        seen["previews"][step] = fingerprint(average)

    class Clips:
        shapes, unconditional = clips.shapes, clips.unconditional

        def __len__(self):
            return len(clips)

        def batch(self, indices):
            tensors = clips.batch(indices)
            if run.get("spoiled") == rank and len(indices) == 2:
                tensors["latents"].fill_(float("nan"))
            return tensors

    try:
        if run.get("measured"):
            with Training(Launched(cpu=True), teacher, student, plan, Clips(), task, settings) as training:
                training.train_step()
                states = training.optimizer.state.values()
                moments = [each[name] for each in states for name in ("exp_avg", "exp_avg_sq")]
                seen["sharded"] = [name for name, each in student.named_modules() if hasattr(each, "unshard")]
                seen["whole"] = sum(weight.numel() for weight in student.parameters())
                seen["weights"] = sum(map(local, student.parameters()))
                seen["moments"] = sum(map(local, moments))
                seen["average"] = sum(map(local, training.average.weights.values()))
        else:
            result = distill(
                teacher, student, plan, Clips(), task, settings, folder / "checkpoint.pt", on_step, on_preview, 4
            )
            seen["losses"] = [losses.values() for losses in result.losses]
            seen["average"] = fingerprint(result.student)
    except (RuntimeError, ValueError) as error:
        seen["error"] = f"{type(error).__name__}: {error}"
    (folder / f"{rank}.json").write_text(json.dumps(seen))
"""


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a teacher, a plan and six encoded clips of two 8x8 latents."""
    folder = tmp_path_factory.mktemp("source")
    torch.manual_seed(0)
    teacher = UNetSpatioTemporalConditionModel(**{**SVD_UNET_CONFIG, **TWO_STAGES}).eval()
    vae = {**SVD_VAE_CONFIG, "block_out_channels": (32, 32, 32, 32), "layers_per_block": 1, "sample_size": 64}
    pipeline = StableVideoDiffusionPipeline(
        vae=AutoencoderKLTemporalDecoder(**vae).eval(),
        image_encoder=CLIPVisionModelWithProjection(VISION).eval(),
        unet=teacher,
        scheduler=EulerDiscreteScheduler(prediction_type="v_prediction", use_karras_sigmas=True),
        feature_extractor=CLIPImageProcessor(),
    )

    class Noise:
        names = tuple(f"clip-{index}" for index in range(6))

        def clip(self, index: int) -> TrainingClip:
            pixels = np.random.default_rng(index).integers(0, 255, (2, 64, 64, 3), dtype=np.uint8)
            return TrainingClip(self.names[index], pixels, seed=index)

    encode_to_cache(pipeline, Noise(), folder / "cache", EncodeSettings(7), identity="tiny")
    teacher.save_pretrained(folder / "teacher")
    (folder / "plan.json").write_text(plan_removing(teacher, {"D.0.1", "U.1.1", "Mid"}, "two-stages").to_json())
    return folder


def arguments(source: Path, *runs: dict[str, Any]) -> list[str]:
    """The script and what it is given."""
    (source / "child.py").write_text(CHILD)
    for run in runs:
        Path(run["folder"]).mkdir(exist_ok=True)
    return [str(source / "child.py"), str(source), json.dumps(runs, default=str)]


def alone_to_the_end(source: Path, *runs: dict[str, Any]) -> None:
    """Run the script in one process."""
    done = forked.run(*arguments(source, *runs))
    assert done.returncode == 0, done.stderr


def launch_to_the_end(source: Path, launch: tuple[str, ...], *runs: dict[str, Any]) -> str:
    """Run the script under `accelerate launch` and return what went to stderr; processes may wait for each other."""
    options = ("--main_process_port=0", "--num_machines=1", "--mixed_precision=no", "--dynamo_backend=no")
    command = [sys.executable, "-m", "accelerate.commands.launch", *launch, *options, *arguments(source, *runs)]
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(Path(vdmini.__file__).parents[1]),
        "HF_HOME": str(source / "no-configuration"),
    }
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=400, env=environment)
    finished = done.returncode == 0
    assert finished == all("fails_at" not in run for run in runs), done.stderr
    return done.stderr


def seen(folder: Path, rank: int = 0) -> dict[str, Any]:
    """What a process saw of a run."""
    result: dict[str, Any] = json.loads((folder / f"{rank}.json").read_text())
    return result


def assert_same_losses(one: dict[str, Any], other: dict[str, Any], steps: int = STEPS, atol: float = TOLERANCE) -> None:
    """All losses of all steps are equal but for rounding, and none of them stands still."""
    values, others = (torch.tensor(each["losses"], dtype=torch.float64) for each in (one, other))
    assert len(values) == steps
    assert (values.diff(dim=0).abs() > 100 * TOLERANCE).any(dim=0).all()
    torch.testing.assert_close(values[:, :-1], others[:, :-1], rtol=0, atol=atol)
    # The gradient's norm jumps where rounding moves a feature across the kink of a leaky ReLU; no loss does.
    torch.testing.assert_close(values[:, -1], others[:, -1], rtol=5e-3, atol=0)


@pytest.fixture(scope="module")
def alone(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one process makes of the two kinds of settings."""
    folder = tmp_path_factory.mktemp("alone")
    whole = {"folder": folder / "whole", "settings": SETTINGS, "kept": KEPT}
    alone_to_the_end(source, whole, {"folder": folder / "thorough", "settings": THOROUGH})
    return folder


def together(source: Path, alone: Path, folder: Path, launch: tuple[str, ...]) -> Path:
    """What two processes make of the same, and of the checkpoint that the one wrote after half of its steps."""
    (folder / "taken-over").mkdir()
    shutil.copy(alone / "whole" / "kept.pt", folder / "taken-over" / "checkpoint.pt")
    errors = launch_to_the_end(
        source,
        launch,
        {"folder": folder / "whole", "settings": SETTINGS, "kept": KEPT},
        {"folder": folder / "sparing", "settings": SPARING},
        {"folder": folder / "taken-over", "settings": SETTINGS},
        {"folder": folder / "measured", "settings": SETTINGS, "measured": True},
        {"folder": folder / "indivisible", "settings": {**SETTINGS, "batch_size": 3}},
        {"folder": folder / "spoiled", "settings": SETTINGS, "spoiled": "1"},
        {"folder": folder / "failing", "settings": SETTINGS, "fails_at": 1},
    )
    (folder / "errors.txt").write_text(errors)
    return folder


@pytest.fixture(scope="module")
def ddp(source: Path, alone: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes with whole students make of it."""
    return together(source, alone, tmp_path_factory.mktemp("ddp"), DDP)


@pytest.fixture(scope="module")
def fsdp(source: Path, alone: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes with shards make of it."""
    return together(source, alone, tmp_path_factory.mktemp("fsdp"), FSDP)


@pytest.fixture
def pair(launch: str, request: pytest.FixtureRequest) -> Path:
    """The folder of a launch of two processes."""
    folder: Path = request.getfixturevalue(launch)
    return folder


@LAUNCHES
def test_two_processes_learn_what_one_does(alone: Path, pair: Path) -> None:
    assert_same_losses(seen(alone / "whole"), seen(pair / "whole"))


@LAUNCHES
def test_the_ways_to_save_memory_change_nothing(alone: Path, pair: Path) -> None:
    # The heads' last biases have no gradient but what rounding leaves, from which Adam makes steps of a fixed size.
    atol = 3 * THOROUGH["head_learning_rate"]
    assert_same_losses(seen(alone / "thorough"), seen(pair / "sparing"), steps=3, atol=atol)


@LAUNCHES
def test_two_processes_take_over_the_checkpoint_of_one(alone: Path, pair: Path) -> None:
    assert seen(pair / "taken-over")["steps"] == [*range(KEPT + 1, STEPS + 1)]
    assert_same_losses(seen(alone / "whole"), seen(pair / "taken-over"))


@pytest.mark.slow
def test_one_process_takes_over_the_checkpoint_of_two(source: Path, alone: Path, fsdp: Path, tmp_path: Path) -> None:
    shutil.copy(fsdp / "whole" / "kept.pt", tmp_path / "checkpoint.pt")
    alone_to_the_end(source, {"folder": tmp_path, "settings": SETTINGS})
    assert seen(tmp_path)["steps"] == [*range(KEPT + 1, STEPS + 1)]
    assert_same_losses(seen(alone / "whole"), seen(tmp_path))


@LAUNCHES
def test_a_killed_group_continues_as_if_unbroken(source: Path, pair: Path, tmp_path: Path) -> None:
    shutil.copy(pair / "whole" / "kept.pt", tmp_path / "checkpoint.pt")
    last = random.randrange(KEPT + 1, STEPS - 1)
    command = arguments(source, {"folder": tmp_path, "settings": {**SETTINGS, "checkpoint_every": 2}})
    variables = json.loads((pair / "whole" / "environment.json").read_text())
    with forked.group(2, *command, **variables) as processes:
        assert f"step {last}\n" in processes[0].stdout
        for each in processes:
            each.process.kill()
        assert [each.finish().returncode for each in processes] == [-9, -9]
    assert not (tmp_path / "0.json").exists()
    with forked.group(2, *command, **variables) as processes:
        for each in processes:
            done = each.finish()
            assert done.returncode == 0, done.stderr
    unbroken, resumed = seen(pair / "whole"), seen(tmp_path)
    assert resumed["steps"][0] - 1 in (KEPT, 6), f"killed after step {last}"
    assert resumed["losses"] == unbroken["losses"], f"killed after step {last}"
    assert resumed["average"] == unbroken["average"]


@LAUNCHES
def test_the_main_process_alone_reports_and_all_return_the_same(pair: Path) -> None:
    main, other = (seen(pair / "whole", rank) for rank in (0, 1))
    assert main["steps"] == [*range(1, STEPS + 1)]
    assert other["steps"] == []
    assert main["previews"].keys() == {"4", "8"}
    assert other["previews"] == {}
    assert main["previews"]["8"] == main["average"] == other["average"]
    assert main["losses"] == other["losses"]


@pytest.mark.slow
def test_each_process_holds_its_share(ddp: Path, fsdp: Path) -> None:
    for rank in (0, 1):
        whole, shard = (seen(pair / "measured", rank) for pair in (ddp, fsdp))
        assert whole["weights"] == whole["average"] == shard["whole"]
        assert whole["moments"] == 2 * shard["whole"]
        for held, all_of_it in (("weights", 1), ("average", 1), ("moments", 2)):
            assert shard[held] == pytest.approx(0.5 * all_of_it * shard["whole"], rel=0.01)
        assert whole["sharded"] == []
        # The network, and the blocks within it one by one.
        assert {"", "down_blocks.0.resnets.0", "down_blocks.0.attentions.0", "up_blocks.0.upsamplers.0"} <= {
            *shard["sharded"]
        }


@LAUNCHES
def test_every_process_names_what_is_wrong(pair: Path) -> None:
    for rank in (0, 1):
        assert seen(pair / "indivisible", rank)["error"] == (
            "ValueError: batch_size 3 does not divide by 2 processes: take a multiple"
        )
        # Its first batch of clips alone was spoiled, and only on the second process.
        assert seen(pair / "spoiled", rank)["error"].startswith("DivergedError: step 1: task is nan, ")


@LAUNCHES
def test_a_process_that_fails_ends_all(pair: Path) -> None:
    # The launch has come to its end, or the fixture would have failed.
    assert "OSError: no space left on device" in (pair / "errors.txt").read_text()


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"ACCELERATE_USE_FSDP": "true"}, "pass --fsdp_version 2"),
        ({"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "1"}, "pass --fsdp_version 2"),
        ({"ACCELERATE_USE_DEEPSPEED": "true"}, "DeepSpeed cannot be used: --use_fsdp"),
        ({"LOCAL_RANK": "0", "WORLD_SIZE": "2"}, "2 processes were launched, but .* call PartialState with cpu=True"),
    ],
)
def test_launches_that_cannot_be_used_are_refused(
    variables: dict[str, str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert Launched(cpu=True).count == 1
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=message):
        Launched(cpu=True)
