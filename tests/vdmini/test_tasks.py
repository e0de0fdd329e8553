"""The EDM task is the one that SVD's own scheduler solves."""

from __future__ import annotations

import math

import pytest
import torch
from diffusers import EulerDiscreteScheduler
from torch import Tensor

from vdmini.tasks import EdmTask, denoised_from_prediction, edm_loss, noisy_input

SIGMAS = torch.tensor([0.002, 0.5, 1.0, 700.0])
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
    latents, noise, prediction = (tensor[:1] for tensor in tensors(3))
    for step, timestep in enumerate(scheduler.timesteps):
        sigma, following = scheduler.sigmas[step], scheduler.sigmas[step + 1]
        noisy = latents + sigma * noise
        network_input, noise_level = noisy_input(latents, noise, sigma[None])
        torch.testing.assert_close(network_input, scheduler.scale_model_input(noisy, timestep))
        torch.testing.assert_close(noise_level, timestep[None])
        denoised = denoised_from_prediction(prediction, noisy, sigma[None])
        result = scheduler.step(prediction, timestep, noisy)
        torch.testing.assert_close(denoised, result.pred_original_sample)
        euler = noisy + (noisy - denoised) / sigma * (following - sigma)
        torch.testing.assert_close(euler, result.prev_sample, rtol=1e-5, atol=1e-4)


def test_the_networks_input_has_unit_variance_at_every_noise_level() -> None:
    latents, noise = tensors(2)
    network_input, _ = noisy_input(latents, noise, SIGMAS)
    torch.testing.assert_close(network_input.flatten(1).std(1), torch.ones(4), rtol=0.1, atol=0)


def test_the_exact_velocity_has_no_loss_and_denoises_exactly() -> None:
    latents, noise = (tensor.double() for tensor in tensors(2))
    sigmas = SIGMAS.double()
    # v = alpha * noise - sigma_vp * latents with alpha = cos and sigma_vp = sin of the same angle.
    angle = torch.atan(sigmas).view(-1, 1, 1, 1, 1)
    velocity = angle.cos() * noise - angle.sin() * latents
    assert edm_loss(velocity, latents, noise, sigmas).item() < 1e-12
    noisy = latents + sigmas.view(-1, 1, 1, 1, 1) * noise
    torch.testing.assert_close(denoised_from_prediction(velocity, noisy, sigmas), latents)


def test_the_loss_is_edms_weighted_denoising_error() -> None:
    latents, noise, prediction = (tensor.double() for tensor in tensors(3))
    sigmas = SIGMAS.double()
    noisy = latents + sigmas.view(-1, 1, 1, 1, 1) * noise
    error = (denoised_from_prediction(prediction, noisy, sigmas) - latents).square().flatten(1).mean(1)
    weight = (sigmas**2 + 1) / sigmas**2
    torch.testing.assert_close(
        edm_loss(prediction, latents, noise, sigmas).double(), (weight * error).mean(), rtol=1e-5, atol=0
    )


def test_each_clip_has_its_own_noise_level() -> None:
    latents, noise, prediction = tensors(3)
    network_input, noise_levels = noisy_input(latents, noise, SIGMAS)
    denoised = denoised_from_prediction(prediction, latents, SIGMAS)
    losses = []
    for clip in range(len(SIGMAS)):
        one = slice(clip, clip + 1)
        alone, level = noisy_input(latents[one], noise[one], SIGMAS[one])
        torch.testing.assert_close(alone, network_input[one])
        torch.testing.assert_close(level, noise_levels[one])
        torch.testing.assert_close(denoised_from_prediction(prediction[one], latents[one], SIGMAS[one]), denoised[one])
        losses.append(edm_loss(prediction[one], latents[one], noise[one], SIGMAS[one]))
    torch.testing.assert_close(torch.stack(losses).mean(), edm_loss(prediction, latents, noise, SIGMAS))


@pytest.mark.parametrize("task", [EdmTask(), EdmTask(sigma_mean=-1.0, sigma_std=1.0)])
def test_noise_levels_are_log_normal(task: EdmTask) -> None:
    sigmas = task.sample_sigmas(40_000, torch.Generator().manual_seed(3))
    assert sigmas.dtype == torch.float32
    for share, deviations in ((0.0228, -2.0), (0.1587, -1.0), (0.5, 0.0), (0.8413, 1.0), (0.9772, 2.0)):
        expected = task.sigma_mean + deviations * task.sigma_std
        assert sigmas.log().quantile(share).item() == pytest.approx(expected, abs=0.05 * task.sigma_std)


def test_the_default_noise_levels_are_svds() -> None:
    sigmas = EdmTask().sample_sigmas(40_000, torch.Generator().manual_seed(3))
    assert sigmas.median().item() == pytest.approx(math.exp(0.7), rel=0.05)
    assert sigmas.log().std().item() == pytest.approx(1.6, rel=0.02)


def test_the_generator_alone_decides_the_noise_levels() -> None:
    task = EdmTask()
    first = task.sample_sigmas(5, torch.Generator().manual_seed(1))
    torch.manual_seed(123)
    assert torch.equal(first, task.sample_sigmas(5, torch.Generator().manual_seed(1)))
    assert not torch.equal(first, task.sample_sigmas(5, torch.Generator().manual_seed(2)))
