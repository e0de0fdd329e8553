"""A full-size step of distillation, tried at small widths: it runs, and its clips are those that encoding makes."""

from __future__ import annotations

import math

import pytest
import torch

from vdmini.blocks import ModelInput
from vdmini.conditioning import CONDITIONING, conditioning_of
from vdmini.models.registry import OFFICIAL, family_named
from vdmini_bench.distill.step_benchmark import distill_step, random_clip


def test_two_steps_of_a_narrow_svd_are_finite() -> None:
    record = distill_step("svd", "vdmini", torch.device("cpu"), channels=64, size=ModelInput(1, 2, 8, 8))
    assert record.losses
    assert all(map(math.isfinite, record.losses.values()))
    assert len(record.step_seconds) == 2
    assert record.latents == (2, 4, 8, 8)
    assert record.student_params < record.teacher_params
    assert record.peak_bytes is None
    assert not record.out_of_memory


@pytest.mark.parametrize("family", [*CONDITIONING])
def test_a_random_clip_is_what_the_familys_denoiser_takes(family: str) -> None:
    name = next(each for each, its_family in OFFICIAL.items() if its_family == family)
    module = family_named(family)
    with torch.device("meta"):
        denoiser, _ = module.build_official(name)
    size = ModelInput(1, 3, 8, 8)
    values = random_clip(denoiser, size).batch(torch.zeros(1, dtype=torch.long))
    latents = values.pop("latents")
    found = conditioning_of(denoiser).denoiser_inputs(denoiser, latents, torch.tensor([500]), values)
    for argument, expected in module.example_inputs(denoiser, size).items():
        if argument == "video_coords":
            # LTX-Video works its places out from the clip's size, which its pipeline gives.
            assert found["num_frames"] * found["height"] * found["width"] == expected.shape[2]
            continue
        assert found[argument].shape == expected.shape, argument
