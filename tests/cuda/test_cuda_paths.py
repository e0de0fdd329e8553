"""What sampling, scoring, importance and estimates do on a GPU, against the same on the CPU."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vdmini.importance import block_seconds
from vdmini.models import load_model
from vdmini.sample import ClipRequest, SampleSettings, sample_clips
from vdmini_bench.doctor import examine
from vdmini_bench.estimation import available_bytes
from vdmini_bench.fingerprint import take_fingerprint
from vdmini_bench.generation import load_for_use
from vdmini_bench.metrics.fvd import clips_to_features
from vdmini_bench.metrics.i3d import InceptionI3d
from vdmini_bench.speed_scopes import ClipSize, denoiser_inputs, latent_size
from vdmini_bench.workers import choose_workers

pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
)
PICTURE = np.linspace(0, 255, 32 * 32 * 3, dtype=np.uint8).reshape(32, 32, 3)
REQUESTS = [ClipRequest(f"clip{seed}", seed, PICTURE) for seed in range(2)]
SETTINGS = SampleSettings(steps=4, frames=4, height=32, width=32)


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
