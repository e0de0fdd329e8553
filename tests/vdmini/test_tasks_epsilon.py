"""The epsilon task has the noise schedules, the noise and the predictions of diffusers' schedulers."""

from __future__ import annotations

import pytest
import torch
from diffusers import CogVideoXDDIMScheduler, DDIMScheduler, DDPMScheduler
from torch import Tensor

from vdmini.models.videocrafter_pipeline import latent_scale
from vdmini.tasks.base import Noised, Teaching
from vdmini.tasks.epsilon import EpsilonTask
from vdmini.tasks.schedule import timesteps_of

TIMESTEPS = torch.tensor([0.0, 250.0, 998.0])
SHAPE = (3, 2, 4, 2, 3)
BETAS = {"beta_start": 0.00085, "beta_end": 0.012}
COGVIDEOX_2B = EpsilonTask(prediction="v", snr_shift=3.0, zero_terminal_snr=True)


def tensors(count: int) -> list[Tensor]:
    """Random latents of three clips, the same in every test."""
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(SHAPE, generator=generator) for _ in range(count)]


@pytest.mark.parametrize(
    ("task", "scheduler"),
    [
        (EpsilonTask(), DDIMScheduler(**BETAS, beta_schedule="scaled_linear")),
        (EpsilonTask(beta_schedule="linear"), DDIMScheduler(**BETAS, beta_schedule="linear")),
        (EpsilonTask(beta_start=1e-4, beta_end=0.02, beta_schedule="linear"), DDPMScheduler()),
        (COGVIDEOX_2B, CogVideoXDDIMScheduler(snr_shift_scale=3.0, rescale_betas_zero_snr=True)),
        (
            EpsilonTask(prediction="v", zero_terminal_snr=True),
            CogVideoXDDIMScheduler(snr_shift_scale=1.0, rescale_betas_zero_snr=True),
        ),
        (EpsilonTask(snr_shift=3.0), CogVideoXDDIMScheduler(snr_shift_scale=3.0)),
    ],
    ids=["latent diffusion", "AnimateDiff", "DDPM", "CogVideoX 2B", "CogVideoX 5B", "shifted"],
)
def test_noise_schedules_are_the_schedulers(
    task: EpsilonTask, scheduler: DDIMScheduler | DDPMScheduler | CogVideoXDDIMScheduler
) -> None:
    torch.testing.assert_close(task.alphas, scheduler.alphas_cumprod.double(), rtol=1e-4, atol=1e-9)
    clean, noise = tensors(2)
    torch.testing.assert_close(
        task.noisy(clean, noise, TIMESTEPS), scheduler.add_noise(clean, noise, TIMESTEPS.long()), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize(("prediction", "theirs"), [("epsilon", "epsilon"), ("v", "v_prediction")])
def test_denoised_clips_and_targets_are_the_schedulers(prediction: str, theirs: str) -> None:
    task = EpsilonTask(prediction=prediction)  # type: ignore[arg-type]
    scheduler = DDIMScheduler(**BETAS, beta_schedule="scaled_linear", prediction_type=theirs, clip_sample=False)
    scheduler.set_timesteps(1000)
    clean, noise, answer = tensors(3)
    noisy = task.noisy(clean, noise, TIMESTEPS)
    denoised = task.denoised(answer, noisy, TIMESTEPS)
    for clip, timestep in enumerate(TIMESTEPS.long()):
        expected = scheduler.step(answer[clip], timestep, noisy[clip]).pred_original_sample
        torch.testing.assert_close(denoised[clip], expected, rtol=1e-4, atol=1e-4)
    target = noise if prediction == "epsilon" else scheduler.get_velocity(clean, noise, TIMESTEPS.long())
    teaching = Teaching(answer, None, lambda *_: answer, None)
    loss = task.loss(Noised(clean, noise, TIMESTEPS), answer, teaching)
    torch.testing.assert_close(loss, (answer - target).square().mean(), rtol=1e-4, atol=0)


def test_the_v_loss_is_cogvideoxs_weighted_denoising_error() -> None:
    clean, noise, answer = (each.double() for each in tensors(3))
    noisy = COGVIDEOX_2B.noisy(clean, noise, TIMESTEPS)
    error = (COGVIDEOX_2B.denoised(answer, noisy, TIMESTEPS) - clean).square().flatten(1).mean(1)
    weights = 1 / (1 - COGVIDEOX_2B.alphas[TIMESTEPS.long()])
    teaching = Teaching(answer, None, lambda *_: answer, None)
    loss = COGVIDEOX_2B.loss(Noised(clean, noise, TIMESTEPS), answer, teaching)
    torch.testing.assert_close(loss, (weights * error).mean(), rtol=1e-6, atol=0)


def test_the_last_timestep_is_pure_noise_where_asked() -> None:
    clean, noise = tensors(2)
    last = torch.full((3,), 999.0)
    torch.testing.assert_close(COGVIDEOX_2B.noisy(clean, noise, last), noise)
    assert not torch.allclose(EpsilonTask().noisy(clean, noise, last), noise, atol=1e-3)
    # v at pure noise is minus the clean clip: it still denoises.
    torch.testing.assert_close(COGVIDEOX_2B.denoised(-clean, noise, last), clean)


def test_videocrafters_latents_shrink_as_its_sampler_expects() -> None:
    task = EpsilonTask(smallest_scale=0.7)
    clean, noise = tensors(2)
    for timestep in (0, 100, 399, 400, 999):
        levels = torch.full((3,), float(timestep))
        expected = EpsilonTask().noisy(latent_scale(timestep) * clean, noise, levels)
        noisy = task.noisy(clean, noise, levels)
        torch.testing.assert_close(noisy, expected, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(task.denoised(noise, noisy, levels), clean, rtol=1e-3, atol=1e-4)


def test_levels_are_all_timesteps_equally_often() -> None:
    levels = EpsilonTask().draw_levels(200_000, torch.Generator().manual_seed(0))
    values, counts = levels.unique(return_counts=True)
    assert values.tolist() == list(range(1000))
    assert counts.min() > 120
    assert counts.max() < 290


@pytest.mark.parametrize("task", [EpsilonTask(), COGVIDEOX_2B, EpsilonTask(smallest_scale=0.7)])
def test_the_adversarys_noise_to_signal_ratios_are_sfvs(task: EpsilonTask) -> None:
    levels = task.draw_adversary_levels(40_000, torch.Generator().manual_seed(0))
    clean = torch.ones(len(levels), 1, 1, 1, 1)
    ratios = (task.noisy(0 * clean, clean, levels) / task.noisy(clean, 0 * clean, levels)).flatten()
    assert [ratios.quantile(share).item() for share in (0.05, 0.5, 0.95)] == pytest.approx(
        [0.071, 0.369, 1.93], rel=0.05
    )


def test_the_timestep_of_a_noise_level_is_the_nearest() -> None:
    alphas = EpsilonTask().alphas
    ratios = ((1 - alphas) / alphas).sqrt()
    torch.testing.assert_close(timesteps_of(ratios, alphas), torch.arange(1000.0))
    sigmas = torch.tensor([1e-6, 0.1, 1.0, 1e6], dtype=torch.float64)
    nearest = (ratios.log()[None] - sigmas.log()[:, None]).abs().argmin(1)
    assert timesteps_of(sigmas, alphas).tolist() == nearest.tolist()
    # The last level of a schedule that ends in pure noise is infinitely far away.
    assert timesteps_of(sigmas[-1:], COGVIDEOX_2B.alphas).item() == 998
