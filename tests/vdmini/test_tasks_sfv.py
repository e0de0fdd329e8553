"""The SF-V task against the numbers its paper publishes."""

from __future__ import annotations

import pytest
import torch
from diffusers import EulerDiscreteScheduler

from vdmini.tasks.base import Noised, Teaching
from vdmini.tasks.edm import EdmTask
from vdmini.tasks.sfv import SfvTask, discretised_log_normal, karras_sigmas, reconstruction_loss


def test_levels_are_the_three_published_sigmas_equally_often() -> None:
    drawn = SfvTask().draw_levels(30_000, torch.Generator().manual_seed(0))
    levels, counts = drawn.unique(return_counts=True)
    assert levels.tolist() == pytest.approx([2.27, 70.5, 700.0], rel=1e-3)
    assert (counts / 30_000).tolist() == pytest.approx([1 / 3] * 3, abs=0.01)


@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning")
def test_karras_sigmas_are_the_schedulers() -> None:
    scheduler = EulerDiscreteScheduler(use_karras_sigmas=True, sigma_min=0.002, sigma_max=700.0)
    scheduler.set_timesteps(25)
    ours = karras_sigmas(25, 0.002, 700.0, 7.0).flip(0).float()
    torch.testing.assert_close(ours, scheduler.sigmas[:-1], rtol=1e-4, atol=0)


def test_the_adversarys_quantiles_are_the_published_ones() -> None:
    drawn = SfvTask().draw_adversary_levels(200_000, torch.Generator().manual_seed(0)).double()
    quantiles = [drawn.sort().values[int(share * len(drawn))].item() for share in (0.05, 0.5, 0.95)]
    # Neighbouring levels lie 2 % apart.
    assert quantiles == pytest.approx([0.071, 0.369, 1.93], rel=0.03)
    sigmas = karras_sigmas(1000, 0.002, 700.0, 7.0)
    total = discretised_log_normal(sigmas, -1.0, 1.0).cumsum(0)
    exact = [sigmas[1 + int(torch.searchsorted(total, share))].item() for share in (0.05, 0.5, 0.95)]
    assert exact == pytest.approx([0.071, 0.369, 1.93], rel=2e-3)


def test_adversary_levels_are_drawn_as_often_as_they_are_likely() -> None:
    task = SfvTask(adversary_steps=6, sigma_min=0.05, sigma_max=5.0)
    sigmas = karras_sigmas(6, 0.05, 5.0, 7.0)
    levels, counts = task.draw_adversary_levels(100_000, torch.Generator().manual_seed(0)).unique(return_counts=True)
    assert levels.tolist() == pytest.approx(sigmas[1:].tolist(), rel=1e-6)
    normal = torch.distributions.Normal(-1.0, 1.0).cdf(sigmas.log())
    expected = normal.diff() / (normal[-1] - normal[0])
    assert (counts / 100_000).tolist() == pytest.approx(expected.tolist(), abs=0.005)


def test_the_network_is_preconditioned_as_svds() -> None:
    generator = torch.Generator().manual_seed(0)
    clean, noise, prediction = (torch.randn(3, 2, 4, 2, 2, generator=generator) for _ in range(3))
    levels = SfvTask().draw_levels(3, generator)
    noisy = SfvTask().noisy(clean, noise, levels)
    assert torch.equal(noisy, EdmTask().noisy(clean, noise, levels))
    for ours, theirs in zip(
        SfvTask().network_input(noisy, levels), EdmTask().network_input(noisy, levels), strict=True
    ):
        assert torch.equal(ours, theirs)
    denoised = SfvTask().denoised(prediction, noisy, levels)
    assert torch.equal(denoised, EdmTask().denoised(prediction, noisy, levels))
    teaching = Teaching(prediction, None, lambda *_: prediction, None)
    loss = SfvTask().loss(Noised(clean, noise, levels), prediction, teaching)
    torch.testing.assert_close(loss, 0.1 * reconstruction_loss(denoised, clean, 0.00054))


def test_reconstruction_is_equation_9_over_the_root_of_a_clips_size() -> None:
    generator = torch.Generator().manual_seed(0)
    denoised, clean = (torch.randn(2, 3, 4, 5, 6, generator=generator, dtype=torch.float64) for _ in range(2))
    size = 3 * 4 * 5 * 6
    constant = 0.00054 * size**0.5
    expected = [
        ((one - other).norm() ** 2 + constant**2).sqrt() - constant for one, other in zip(denoised, clean, strict=True)
    ]
    torch.testing.assert_close(reconstruction_loss(denoised, clean, 0.00054), torch.stack(expected).mean() / size**0.5)


def test_reconstruction_means_the_same_for_clips_of_any_size() -> None:
    clean = torch.zeros(1, 2, 4, 3, 3)
    small, large = (
        reconstruction_loss(clean + 0.5, clean, 0.00054),
        reconstruction_loss(torch.full((1, 8, 4, 6, 6), 0.5), torch.zeros(1, 8, 4, 6, 6), 0.00054),
    )
    assert small.item() == pytest.approx(0.5, rel=0.01)
    assert large.item() == pytest.approx(small.item(), rel=1e-5)


def test_a_perfect_reconstruction_has_a_gradient() -> None:
    denoised = torch.zeros(1, 2, 4, 3, 3, requires_grad=True)
    reconstruction_loss(denoised, torch.zeros(1, 2, 4, 3, 3), 0.00054).backward()
    assert denoised.grad is not None
    assert torch.equal(denoised.grad, torch.zeros_like(denoised))
