"""The EDM task is the one that SVD's own scheduler solves."""

from __future__ import annotations

import math

import pytest
import torch
from diffusers import EulerDiscreteScheduler
from torch import Tensor

from vdmini.tasks.base import Noised, Teaching
from vdmini.tasks.edm import EdmTask, edm_loss

SIGMAS = torch.tensor([0.002, 0.5, 1.0, 700.0])
TASK = EdmTask()
SHAPE = (4, 3, 4, 5, 6)


def tensors(count: int) -> list[Tensor]:
    """Random latents of four clips, the same in every test."""
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(SHAPE, generator=generator) for _ in range(count)]


@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning")
def test_preconditioning_and_denoising_are_svds_schedulers() -> None:
    scheduler = EulerDiscreteScheduler(
        prediction_type="v_prediction",
        use_karras_sigmas=True,
        sigma_min=0.002,
        sigma_max=700.0,
        timestep_type="continuous",
    )
    scheduler.set_timesteps(6)
    clean, noise, prediction = (tensor[:1] for tensor in tensors(3))
    for step, timestep in enumerate(scheduler.timesteps):
        sigma, following = scheduler.sigmas[step], scheduler.sigmas[step + 1]
        noisy = TASK.noisy(clean, noise, sigma[None])
        torch.testing.assert_close(noisy, scheduler.add_noise(clean, noise, timestep[None]))
        network_input, noise_level = TASK.network_input(noisy, sigma[None])
        torch.testing.assert_close(network_input, scheduler.scale_model_input(noisy, timestep))
        torch.testing.assert_close(noise_level, timestep[None])
        denoised = TASK.denoised(prediction, noisy, sigma[None])
        result = scheduler.step(prediction, timestep, noisy)
        torch.testing.assert_close(denoised, result.pred_original_sample)
        euler = noisy + (noisy - denoised) / sigma * (following - sigma)
        torch.testing.assert_close(euler, result.prev_sample, rtol=1e-5, atol=1e-4)


def test_the_networks_input_has_unit_variance_at_every_noise_level() -> None:
    clean, noise = tensors(2)
    network_input, _ = TASK.network_input(TASK.noisy(clean, noise, SIGMAS), SIGMAS)
    torch.testing.assert_close(network_input.flatten(1).std(1), torch.ones(4), rtol=0.1, atol=0)


def test_the_loss_is_edms_weighted_denoising_error() -> None:
    clean, noise, prediction = (tensor.double() for tensor in tensors(3))
    sigmas = SIGMAS.double()
    noisy = TASK.noisy(clean, noise, sigmas)
    error = (TASK.denoised(prediction, noisy, sigmas) - clean).square().flatten(1).mean(1)
    weight = (sigmas**2 + 1) / sigmas**2
    torch.testing.assert_close(edm_loss(prediction, clean, noise, sigmas), (weight * error).mean(), rtol=1e-5, atol=0)


def test_the_tasks_loss_is_edms_and_no_guidance_is_embedded() -> None:
    clean, noise, prediction = tensors(3)
    loss = TASK.loss(Noised(clean, noise, SIGMAS), prediction, Teaching(clean, None, lambda *_: prediction, None))
    assert torch.equal(loss, edm_loss(prediction, clean, noise, SIGMAS))
    assert TASK.draw_guidance(3, torch.Generator()) is None


@pytest.mark.parametrize("task", [EdmTask(), EdmTask(sigma_mean=-2.0, sigma_std=0.5)])
def test_noise_levels_are_log_normal(task: EdmTask) -> None:
    sigmas = task.draw_levels(40_000, torch.Generator().manual_seed(3))
    for share, deviations in ((0.0228, -2.0), (0.1587, -1.0), (0.5, 0.0), (0.8413, 1.0), (0.9772, 2.0)):
        expected = task.sigma_mean + deviations * task.sigma_std
        assert sigmas.log().quantile(share).item() == pytest.approx(expected, abs=0.05 * task.sigma_std)


def test_the_default_noise_levels_are_svds_and_the_adversarys_sfvs() -> None:
    sigmas = EdmTask().draw_levels(40_000, torch.Generator().manual_seed(3))
    assert sigmas.median().item() == pytest.approx(math.exp(0.7), rel=0.05)
    assert sigmas.log().std().item() == pytest.approx(1.6, rel=0.02)
    adversary = EdmTask().draw_adversary_levels(40_000, torch.Generator().manual_seed(3))
    assert adversary.log().mean().item() == pytest.approx(-1.0, abs=0.02)
    assert adversary.log().std().item() == pytest.approx(1.0, rel=0.02)
