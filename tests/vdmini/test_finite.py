"""What is not finite ends with its name: weights of every part, latents at their step, frames, rows of features."""

from __future__ import annotations

import dataclasses
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableVideoDiffusionPipeline
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from vdmini.checkpoint import save_student
from vdmini.finite import NotFiniteError, check_rows, is_finite
from vdmini.models.loading import load_model
from vdmini.plan import PruningPlan
from vdmini.requests import ClipRequest, SampleSettings
from vdmini.sample import sample_clips

pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
)
SETTINGS = SampleSettings(steps=3, frames=3, height=32, width=64)


@pytest.fixture
def saved(tiny_pipeline: StableVideoDiffusionPipeline, tmp_path: Path) -> Path:
    tiny_pipeline.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def plant(file: Path, value: float, count: int = 3) -> str:
    """Write a value over the first numbers of a file's largest tensor; its name."""
    weights = load_file(file)
    name = max(weights, key=lambda each: weights[each].numel())
    weights[name].view(-1)[:count] = value
    save_file(weights, file, metadata={"format": "pt"})
    return name


@pytest.mark.parametrize("part", ["unet", "vae", "image_encoder"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_weight_of_every_part_is_named_when_it_is_loaded(saved: Path, part: str, value: float) -> None:
    (file,) = (saved / part).glob("*.safetensors")
    name = plant(file, value)
    with pytest.raises(NotFiniteError, match=rf"^{part}\.{name}: 3 of [0-9,]+ values are not finite"):
        load_model(saved)


def test_a_bare_denoisers_weight_is_named(saved: Path) -> None:
    name = plant(saved / "unet" / "diffusion_pytorch_model.safetensors", math.nan, 1)
    shutil.rmtree(saved / "vae")
    with pytest.raises(NotFiniteError, match=rf"^{name}: 1 of "):
        load_model(saved / "unet")
    assert load_model(saved / "unet", device="meta").blocks.params > 0


def test_a_weight_too_large_for_half_precision_is_named(saved: Path) -> None:
    name = plant(saved / "unet" / "diffusion_pytorch_model.safetensors", 1e5)
    load_model(saved)
    with pytest.raises(NotFiniteError, match=rf"^unet\.{name}: 3 of .* load it in float32"):
        load_model(saved, dtype=torch.float16)


def test_no_student_is_saved_with_such_a_weight(
    tiny_pipeline: StableVideoDiffusionPipeline, tiny_whole_plan: PruningPlan, tmp_path: Path
) -> None:
    tiny_pipeline.unet.conv_in.bias.data[0] = math.nan
    with pytest.raises(NotFiniteError, match=r"^unet\.conv_in\.bias: 1 of 32 "):
        save_student(tmp_path / "student", tiny_pipeline, tiny_whole_plan, {})
    assert not list(tmp_path.iterdir())


def request(seed: int) -> ClipRequest:
    image = np.random.default_rng(seed).integers(0, 256, (32, 64, 3), dtype=np.uint8)
    return ClipRequest(f"clip-{seed}", seed, image)


def spoil(module: nn.Module, value: float, calls: set[int], of: int) -> None:
    """Put a value into the output of some of a module's calls, of so many a clip."""
    called = [0]

    def change(_: nn.Module, inputs: object, output: Any) -> Any:
        called[0] += 1
        if (called[0] - 1) % of in calls:
            (output if isinstance(output, Tensor) else output[0])[-1, ..., -1] = value
        return output

    module.register_forward_hook(change)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_latents_that_go_wrong_are_named_with_clip_and_step(
    tiny_pipeline: StableVideoDiffusionPipeline, value: float
) -> None:
    spoil(tiny_pipeline.unet, value, {1}, of=SETTINGS.steps)
    # The last value is of the last clip.
    with pytest.raises(NotFiniteError, match=r"^clip 'clip-8': its latents are not finite from denoising step 2 of 3"):
        sample_clips(tiny_pipeline, [request(7), request(8)], SETTINGS)


def test_frames_that_go_wrong_are_named_with_their_clip(tiny_pipeline: StableVideoDiffusionPipeline) -> None:
    spoil(tiny_pipeline.vae.decoder, math.nan, {0}, of=1)
    with pytest.raises(NotFiniteError, match=r"^clip 'clip-3': its frames are not finite, though the latents"):
        sample_clips(tiny_pipeline, [request(3)], SETTINGS)
    assert len(tiny_pipeline.unet._forward_hooks) == 0


def test_clips_without_fault_are_watched_by_nobody(tiny_pipeline: StableVideoDiffusionPipeline) -> None:
    settings = dataclasses.replace(SETTINGS, steps=1)
    assert sample_clips(tiny_pipeline, [request(1)], settings).std() > 0
    assert len(tiny_pipeline.unet._forward_hooks) == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_one_value_among_many_is_found(dtype: torch.dtype, value: float) -> None:
    values = torch.randn(3, 501, generator=torch.Generator().manual_seed(0)).to(dtype)
    assert is_finite(values)
    for place in (0, 700, 1502):
        spoilt = values.clone()
        spoilt.view(-1)[place] = value
        assert not is_finite(spoilt)
    assert is_finite(torch.empty(0, dtype=dtype))


def test_rows_are_named() -> None:
    rows = np.ones((3, 2, 2), np.float32)
    check_rows(rows, ["a", "b", "c"], "features")
    rows[1, 0, 1] = np.nan
    with pytest.raises(NotFiniteError, match=r"^features of b are not finite \(1 of 3\)$"):
        check_rows(rows, ["a", "b", "c"], "features")
