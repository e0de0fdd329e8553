"""What sampling, scoring, importance, estimates and distillation do on a GPU, against the same on the CPU."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from vdmini.importance import block_seconds
from vdmini.models.loading import load_model
from vdmini.requests import ClipRequest, SampleSettings
from vdmini.sample import sample_clips
from vdmini_bench.cli import main
from vdmini_bench.commands.doctor import examine
from vdmini_bench.data.synthetic import draw_clip
from vdmini_bench.data.video import write_video
from vdmini_bench.distill.estimate import available_bytes
from vdmini_bench.metrics.fvd import clips_to_features
from vdmini_bench.metrics.i3d import InceptionI3d
from vdmini_bench.models.ready import load_ready
from vdmini_bench.models.source import load_for_use, model_folder
from vdmini_bench.speed.scopes import ClipSize, denoiser_inputs, latent_size
from vdmini_bench.system.fingerprint import take_fingerprint
from vdmini_bench.system.workers import choose_workers

pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
)
PICTURE = np.linspace(0, 255, 32 * 32 * 3, dtype=np.uint8).reshape(32, 32, 3)
REQUESTS = [ClipRequest(f"clip{seed}", seed, PICTURE) for seed in range(2)]
SETTINGS = SampleSettings(steps=4, frames=4, height=32, width=32)
DISTILLATION = """\
kind: distillation
name: small
teacher: embedded/svd
plan: vdmini
dtype: bfloat16
clip: {frames: 4, frames_per_second: 7, height: 32, width: 32, noise_strength: 0.0}
data: {kind: folder, path: videos}
distill: {steps: 3, batch_size: 2, learning_rate: 1e-4, checkpoint_every: 1, mixed_precision: bf16}
"""


def test_a_clips_noise_is_the_same_on_every_device(cuda: torch.device) -> None:
    first, second = (
        sample_clips(load_model("embedded/svd", device=device).pipeline, REQUESTS, SETTINGS).astype(int)
        for device in (torch.device("cpu"), cuda)
    )
    # Rounding, and TF32 where a card has it; clips of other noise differ by more.
    between_seeds = np.abs(first[0] - first[1]).mean()
    assert np.abs(first - second).mean() < between_seeds / 4


def test_models_for_use_are_on_the_gpu_where_there_is_one(cuda: torch.device) -> None:
    model = load_for_use("embedded/svd", "bfloat16")
    assert all(weight.device.type == cuda.type for weight in model.denoiser.parameters())
    assert sample_clips(model.pipeline, REQUESTS, SETTINGS).std() > 0


@pytest.mark.parametrize("way", ["model", "group"])
def test_networks_that_wait_on_the_cpu_make_the_clips_of_those_on_the_gpu(cuda: torch.device, way: str) -> None:
    folder = model_folder("embedded/svd")
    plain, offloaded = (
        sample_clips(load_ready(folder, None, [], cuda, torch.float32, each).model.pipeline, REQUESTS, SETTINGS)
        for each in (None, way)
    )
    assert np.array_equal(plain, offloaded)


def test_features_of_clips_are_those_of_the_cpu(cuda: torch.device) -> None:
    torch.manual_seed(0)
    network = InceptionI3d().eval()
    clips = [torch.randint(0, 256, (1, 9, 3, 64, 64), dtype=torch.uint8)]
    expected = clips_to_features(clips, network)
    found = clips_to_features(clips, network.to(cuda))
    assert found.device.type == "cpu"
    # With TF32 on they would differ by a thousandth.
    assert (found - expected).abs().max() <= 1e-4 * expected.abs().max()


def test_seconds_of_blocks_are_waited_for(cuda: torch.device) -> None:
    model = load_model("embedded/svd", device=cuda)
    inputs = denoiser_inputs(model.denoiser, latent_size(model, ClipSize(4, 32, 32, 1)), cuda)
    seconds = block_seconds(model.denoiser, inputs, runs=2)
    assert all(value > 0 for value in seconds.values())


def test_the_card_is_named_and_its_memory_known(cuda: torch.device) -> None:
    name = torch.cuda.get_device_name(0)
    assert take_fingerprint().gpu == name
    assert any(name in str(finding) for finding in examine())
    assert 0 < available_bytes(cuda) <= torch.cuda.get_device_properties(cuda).total_memory
    assert choose_workers(None) >= 1


def test_a_distillation_is_planned_and_run_on_the_gpu(cuda: torch.device, tmp_path: Path) -> None:
    for number in range(2):
        write_video(tmp_path / "videos" / f"{number}.mkv", draw_clip("Rise", 1, number).frames[:4], 7)
    (tmp_path / "videos" / "captions.csv").write_text("file,caption\n0.mkv,a\n1.mkv,b\n", encoding="utf-8")
    (tmp_path / "small.yaml").write_text(DISTILLATION, encoding="utf-8")
    command = ["distill", str(tmp_path / "small.yaml"), "--results", str(tmp_path / "results"), "--json"]
    planned = CliRunner().invoke(main, [*command, "--dry-run"], catch_exceptions=False)
    done = CliRunner().invoke(main, command, catch_exceptions=False)
    name = torch.cuda.get_device_name()
    assert name in planned.stdout
    assert json.loads(planned.stdout)["step_seconds"] > 0
    found = json.loads(done.stdout)
    assert found["device"] == name
    assert found["peak_memory_bytes"] > 0
    assert all(np.isfinite(value) for value in found["losses"].values())
