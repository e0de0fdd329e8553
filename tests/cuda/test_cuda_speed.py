"""The paths of timing, optimizing and distilling that only a GPU takes."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

import vdmini
from vdmini.attention_kernels import fastest_first
from vdmini.blocks import ModelInput
from vdmini_bench.config.timing import Attention, SpeedRequest
from vdmini_bench.distill.step_benchmark import distill_step
from vdmini_bench.models.random_models import build_random
from vdmini_bench.speed.benchmark import time_models
from vdmini_bench.speed.gpu_sensor import open_sensor
from vdmini_bench.speed.models import attention_backend
from vdmini_bench.speed.roofline import measure_roofline
from vdmini_bench.speed.scopes import ClipSize, PhaseClock, denoiser_call, denoiser_inputs, latent_size
from vdmini_bench.speed.timing import peak_memory, time_once

pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
)
NARROW = {"svd": 64, "t2v-turbo-v2": 64, "hunyuanvideo": 256}
CLIPS = {
    "svd": ClipSize(4, 128, 128, 1),
    "t2v-turbo-v2": ClipSize(4, 128, 128, 2),
    "hunyuanvideo": ClipSize(5, 128, 128, 1),
}


def test_events_measure_what_the_device_does_not_when_python_returns(cuda: torch.device) -> None:
    square = torch.randn(8192, 8192, device=cuda)
    milliseconds = time_once(lambda: [square @ square for _ in range(5)], cuda)
    # 5.5 TFLOP, which no card does in a millisecond, though launching takes less.
    assert 1 < milliseconds < 10_000
    clock = PhaseClock(cuda)
    start = clock.mark()
    square @ square
    clock.add("product", start, clock.mark())
    assert 0 < clock.take()["product"] < milliseconds


def test_peak_memory_is_what_a_call_allocates(cuda: torch.device) -> None:
    assert peak_memory(lambda: torch.empty(2**26, dtype=torch.uint8, device=cuda), cuda) >= 2**26


def test_the_roofline_of_small_formats_is_above_that_of_float32(cuda: torch.device) -> None:
    assert (
        measure_roofline(cuda, torch.bfloat16).flops_per_second > measure_roofline(cuda, torch.float32).flops_per_second
    )


@pytest.mark.parametrize("name", [*NARROW])
def test_random_models_are_made_on_the_device_in_the_dtype(name: str, cuda: torch.device) -> None:
    model = build_random(name, device=cuda, dtype=torch.bfloat16, width=NARROW[name])
    weights = [*model.denoiser.parameters(), *model.denoiser.buffers()]
    assert all(weight.is_cuda for weight in weights)
    assert {weight.dtype for weight in weights if weight.is_floating_point()} == {torch.bfloat16}
    with torch.inference_mode():
        output: Any = denoiser_call(model, CLIPS[name], cuda)()
    assert torch.isfinite(output.sample).all()


@pytest.mark.parametrize("name", [*NARROW])
def test_a_report_of_every_scope(name: str, cuda: torch.device, tmp_path: Path) -> None:
    size = CLIPS[name]
    plan = "keep:Dual=16,Single=32" if name == "hunyuanvideo" else "vdmini"
    asked = SpeedRequest(
        name, (plan,), True, (size.height, size.width), size.frames, size.steps, "bfloat16", channels=NARROW[name]
    )
    report = time_models(asked, cuda)
    report.write(tmp_path)
    scopes = {row["scope"] for row in json.loads((tmp_path / "speed.json").read_text())["rows"]}
    assert scopes - {"vae_encode"} == {"denoiser", "vae_decode", "end_to_end", "encoders", "steps"}
    assert ("vae_encode" in scopes) == (name == "svd")
    assert all(row.timing.peak_bytes for row in report.rows if row.timing.scope == "denoiser")
    assert (tmp_path / "roofline.png").is_file()


@pytest.mark.parametrize("backend", ["flash", "efficient", "math"])
def test_attention_backends_agree(backend: Attention, cuda: torch.device) -> None:
    query = torch.randn(2, 4, 256, 64, device=cuda, dtype=torch.bfloat16)
    attend = torch.nn.functional.scaled_dot_product_attention
    with attention_backend(backend):
        found = attend(query, query, query)
    assert torch.allclose(found.float(), attend(query.float(), query.float(), query.float()), atol=3e-2)


@pytest.mark.parametrize("name", [*NARROW])
def test_optimizing_in_bfloat16_stays_within_the_tolerance(name: str, cuda: torch.device) -> None:
    model = build_random(name, device=cuda, dtype=torch.bfloat16, width=NARROW[name])
    inputs = denoiser_inputs(model.denoiser, latent_size(model, CLIPS[name]), cuda)
    with torch.inference_mode():
        expected = model.denoiser(**inputs).sample.float()
        done = vdmini.optimize(model.pipeline or model.denoiser)
        found = model.denoiser(**inputs).sample.float()
    assert (found - expected).abs().max() <= done.tolerance * expected.abs().max()


def test_optimizing_prefers_attention_kernels_by_their_speed_here(cuda: torch.device) -> None:
    order = fastest_first(cuda, torch.bfloat16, 64)
    assert order, "every GPU that torch supports has a fused kernel for bfloat16"
    model = build_random("t2v-turbo-v2", device=cuda, dtype=torch.bfloat16, width=64, with_pipeline=False)
    before = torch._C._get_sdp_priority_order()
    done = vdmini.optimize(model.denoiser)
    assert "attention by" in str(done)
    with torch.inference_mode():
        model.denoiser(**denoiser_inputs(model.denoiser, latent_size(model, CLIPS["t2v-turbo-v2"]), cuda))
    assert torch._C._get_sdp_priority_order() == before


def test_another_card_than_torchs_own_choice_is_timed_on_its_own_clock(cuda: torch.device) -> None:
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two GPUs, and torch sees one")
    second = torch.device("cuda:1")
    square = torch.randn(8192, 8192, device=second)
    assert torch.cuda.current_device() != second.index
    # 5.5 TFLOP; events of the idle first card would be microseconds apart.
    assert time_once(lambda: [square @ square for _ in range(5)], second) > 1


@pytest.mark.filterwarnings("ignore:TensorFloat32 tensor cores")
def test_compiled_stays_within_the_tolerance(cuda: torch.device) -> None:
    model = build_random("svd", device=cuda, dtype=torch.float32, width=64)
    inputs = denoiser_inputs(model.denoiser, latent_size(model, CLIPS["svd"]), cuda)
    with torch.no_grad():
        expected = model.denoiser(**inputs).sample
        done = vdmini.optimize(model.denoiser, compiled=True)
        found = model.denoiser(**inputs).sample
    # TF32 may be chosen by the compiler's kernels where cuBLAS did not.
    assert (found - expected).abs().max() <= max(done.tolerance, 1e-2) * expected.abs().max()


@pytest.mark.parametrize(
    ("name", "plan", "size"),
    [
        ("svd", "vdmini", ModelInput(1, 4, 16, 16)),
        ("t2v-turbo-v2", "vdmini", ModelInput(1, 4, 16, 16)),
        ("hunyuanvideo", "every-nth:n=5", ModelInput(1, 2, 8, 8)),
    ],
)
def test_a_distillation_step_is_finite_and_its_memory_is_known(
    name: str, plan: str, size: ModelInput, cuda: torch.device
) -> None:
    record = distill_step(name, plan, cuda, channels=NARROW[name], size=size)
    assert record.losses
    assert all(map(math.isfinite, record.losses.values()))
    assert record.peak_bytes is not None
    assert record.peak_bytes > 16 * record.student_params


def test_nvml_tells_clocks_where_it_is_installed(cuda: torch.device) -> None:
    pytest.importorskip("pynvml", reason="needs nvidia-ml-py: pip install nvidia-ml-py")
    sensor = open_sensor(cuda)
    assert sensor is not None
    assert (sensor.read().clock_mhz or 0) > 100
