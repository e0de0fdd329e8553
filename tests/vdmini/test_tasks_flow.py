"""The flow task is the one that diffusers' flow-matching scheduler solves."""

from __future__ import annotations

import math

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from vdmini.tasks.base import Noised, Teaching
from vdmini.tasks.flow import FlowTask, flow_loss, shifted

SHAPE = (1, 2, 4, 3, 3)


def tensors(count: int) -> list[Tensor]:
    """Random latents of one clip, the same in every test."""
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(SHAPE, generator=generator) for _ in range(count)]


def test_noise_and_timesteps_are_the_schedulers() -> None:
    scheduler = FlowMatchEulerDiscreteScheduler(shift=7.0)
    clean, noise = tensors(2)
    for index in (0, 300, 999):
        timestep, sigma = scheduler.timesteps[index][None], scheduler.sigmas[index][None]
        noisy = FlowTask().noisy(clean, noise, sigma)
        torch.testing.assert_close(noisy, scheduler.scale_noise(clean, timestep, noise))
        network_input, ours = FlowTask().network_input(noisy, sigma)
        assert torch.equal(network_input, noisy)
        torch.testing.assert_close(ours, timestep)


@pytest.mark.parametrize("level", [0.01, 0.5, 1.0])
@pytest.mark.parametrize("inverted", [False, True])
def test_one_step_of_the_scheduler_along_the_prediction_is_the_denoised_clip(level: float, inverted: bool) -> None:
    task = FlowTask(inverted=inverted)
    scheduler = FlowMatchEulerDiscreteScheduler(invert_sigmas=inverted)
    scheduler.set_timesteps(sigmas=[level])
    clean, noise, prediction = tensors(3)
    levels = torch.tensor([level])
    noisy = task.noisy(clean, noise, levels)
    _, timesteps = task.network_input(noisy, levels)
    torch.testing.assert_close(timesteps, scheduler.timesteps)
    stepped = scheduler.step(prediction, scheduler.timesteps[0], noisy).prev_sample
    torch.testing.assert_close(task.denoised(prediction, noisy, levels), stepped)

    scheduler.set_timesteps(sigmas=[level])
    velocity = clean - noise if inverted else noise - clean
    arrived = scheduler.step(velocity, scheduler.timesteps[0], noisy).prev_sample
    torch.testing.assert_close(arrived, clean, rtol=1e-4, atol=1e-5)
    teaching = Teaching(prediction, None, lambda *_: velocity, None)
    assert task.loss(Noised(clean, noise, levels), velocity, teaching).item() == 0


def test_the_loss_is_the_mean_square_at_every_level() -> None:
    clean, noise, velocity = tensors(3)
    expected = (velocity - noise + clean).square().mean()
    torch.testing.assert_close(flow_loss(velocity, clean, noise), expected)


@pytest.mark.parametrize("shift", [1.0, 3.0, 7.0])
def test_shifting_is_the_schedulers(shift: float) -> None:
    plain, other = FlowMatchEulerDiscreteScheduler(), FlowMatchEulerDiscreteScheduler(shift=shift)
    torch.testing.assert_close(shifted(plain.sigmas, shift), other.sigmas)


@given(st.floats(1e-3, 1 - 1e-3), st.floats(0.1, 20))
def test_shifting_multiplies_the_noise_to_signal_ratio(level: float, shift: float) -> None:
    levels = torch.tensor([level], dtype=torch.float64)
    assert shifted(levels, shift).logit().item() == pytest.approx(levels.logit().item() + math.log(shift), abs=1e-9)
    torch.testing.assert_close(shifted(shifted(levels, shift), 1 / shift), levels)


@pytest.mark.parametrize(
    ("task", "mean", "std"),
    [
        (FlowTask(), math.log(7), 1.0),
        (FlowTask(shift=1.0), 0.0, 1.0),
        (FlowTask(shift=3.0, logit_mean=-0.5, logit_std=2.0), math.log(3) - 0.5, 2.0),
    ],
)
def test_levels_are_logit_normal_and_shifted(task: FlowTask, mean: float, std: float) -> None:
    levels = task.draw_levels(40_000, torch.Generator().manual_seed(0))
    assert ((levels > 0) & (levels <= 1)).all()
    logits = levels.double().logit(eps=1e-7)
    assert logits.mean().item() == pytest.approx(mean, abs=0.03 * std)
    assert logits.std().item() == pytest.approx(std, rel=0.02)


@pytest.mark.parametrize(("lowest", "highest"), [(0.875, 1.0), (0.0, 0.875), (0.2, 0.6)])
@pytest.mark.parametrize("draw", ["draw_levels", "draw_adversary_levels"])
def test_an_experts_levels_are_those_that_fall_between_its_own(draw: str, lowest: float, highest: float) -> None:
    task = FlowTask(shift=3.0, adversary_mean=0.5)
    every = getattr(task, draw)(400_000, torch.Generator().manual_seed(0))
    kept = every[(every >= lowest) & (every <= highest)]
    found = getattr(task.between(lowest, highest), draw)(40_000, torch.Generator().manual_seed(1))
    assert ((found >= lowest) & (found <= highest)).all()
    shares = torch.tensor([0.01, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99])
    width = highest - lowest
    torch.testing.assert_close(found.quantile(shares), kept.quantile(shares), rtol=0, atol=0.01 * width)


def test_the_adversarys_noise_to_signal_ratios_are_sfvs() -> None:
    levels = FlowTask().draw_adversary_levels(40_000, torch.Generator().manual_seed(0))
    ratios = levels / (1 - levels)
    assert [ratios.quantile(share).item() for share in (0.05, 0.5, 0.95)] == pytest.approx(
        [0.071, 0.369, 1.93], rel=0.05
    )
    clean, noise = torch.zeros(1, 1, 1, 1, 1), torch.ones(1, 1, 1, 1, 1)
    signal = FlowTask().noisy(noise, clean, levels[:1]).item()
    assert FlowTask().noisy(clean, noise, levels[:1]).item() / signal == pytest.approx(ratios[0].item())


def test_guidance_is_embedded_only_where_asked() -> None:
    generator = torch.Generator().manual_seed(0)
    before = generator.get_state()
    assert FlowTask().draw_guidance(3, generator) is None
    guidance = FlowTask(guidance=6.0).draw_guidance(3, generator)
    assert guidance is not None
    assert guidance.tolist() == [6.0] * 3
    assert guidance.dtype == torch.float32
    assert torch.equal(generator.get_state(), before)
