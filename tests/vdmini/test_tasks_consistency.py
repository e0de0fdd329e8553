"""The consistency task has the schedulers' steps, and a perfect consistency function has no loss."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from diffusers import DDIMScheduler, LCMScheduler
from torch import Tensor

from vdmini.models.videocrafter_pipeline import consistency_scheduler, consistency_timesteps
from vdmini.tasks.base import Noised, Predict, Teaching
from vdmini.tasks.consistency import ConsistencyTask, boundary_scalings, ddim_step, guided, huber_loss

TASK = ConsistencyTask()
LEVELS = torch.tensor([4.0, 9.0, 499.0, 999.0])
SHAPE = (4, 2, 4, 2, 3)
BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


def tensors(count: int) -> list[Tensor]:
    """Random latents of four clips, the same in every test."""
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(SHAPE, generator=generator, dtype=torch.float64) for _ in range(count)]


def scales(timesteps: Tensor) -> tuple[Tensor, Tensor]:
    """sqrt(alpha) and sqrt(1 - alpha) by diffusers' own schedule, for tensors B T C H W."""
    alphas = DDIMScheduler(**BETAS).alphas_cumprod.double()[timesteps.long()].view(-1, 1, 1, 1, 1)
    return alphas.sqrt(), (1 - alphas).sqrt()


def test_levels_are_the_samplers_two_hundred_timesteps_equally_often() -> None:
    levels, counts = TASK.draw_levels(100_000, torch.Generator().manual_seed(0)).unique(return_counts=True)
    assert levels.tolist() == sorted(consistency_timesteps(200))
    assert levels[[0, 1, -1]].tolist() == [4, 9, 999]
    assert counts.min() > 380
    assert counts.max() < 620
    assert TASK.following(LEVELS).tolist() == [0, 4, 494, 994]
    assert ConsistencyTask(solver_steps=50).following(torch.tensor([19.0, 39.0])).tolist() == [0, 19]


def test_guidance_scales_are_uniform_from_5_to_15() -> None:
    guidance = TASK.draw_guidance(40_000, torch.Generator().manual_seed(0))
    assert 5 <= guidance.min() < 5.01
    assert 14.99 < guidance.max() <= 15
    quantiles = [guidance.quantile(share).item() for share in (0.25, 0.5, 0.75)]
    assert quantiles == pytest.approx([7.5, 10, 12.5], abs=0.1)


def test_the_consistency_function_is_the_lcm_schedulers_answer() -> None:
    scheduler = consistency_scheduler()
    assert isinstance(scheduler, LCMScheduler)
    noisy, prediction = (each.float() for each in tensors(2))
    ours = TASK.consistency(prediction, noisy, LEVELS)
    for clip, timestep in enumerate(LEVELS.long()):
        c_skip, c_out = scheduler.get_scalings_for_boundary_condition_discrete(timestep)
        skip, out = boundary_scalings(timestep[None].float(), 0.5, 10.0)
        torch.testing.assert_close(skip[0], c_skip)
        torch.testing.assert_close(out[0], c_out)
        scheduler.set_timesteps(timesteps=consistency_timesteps(200), original_inference_steps=200)
        denoised = scheduler.step(prediction[clip], timestep, noisy[clip]).denoised
        torch.testing.assert_close(ours[clip], denoised, rtol=1e-4, atol=1e-4)


def test_the_consistency_function_is_the_identity_at_timestep_0() -> None:
    noisy, prediction = tensors(2)
    assert torch.equal(TASK.consistency(prediction, noisy, torch.zeros(4)), noisy)


def test_the_solvers_step_is_the_ddim_schedulers() -> None:
    scheduler = DDIMScheduler(**BETAS, clip_sample=False, set_alpha_to_one=False, timestep_spacing="trailing")
    scheduler.set_timesteps(200)
    assert sorted(scheduler.timesteps.tolist()) == sorted(consistency_timesteps(200))
    noisy, prediction = tensors(2)
    ours = ddim_step(prediction, noisy, LEVELS, TASK.following(LEVELS), TASK.alphas)
    for clip, timestep in enumerate(LEVELS.long()):
        expected = scheduler.step(prediction[clip], timestep, noisy[clip]).prev_sample
        torch.testing.assert_close(ours[clip], expected, rtol=1e-4, atol=1e-5)


def test_the_huber_loss_is_quadratic_near_and_linear_far() -> None:
    zero = torch.zeros(1, dtype=torch.float64)
    assert huber_loss(zero + 1e-5, zero, 1e-3).item() == pytest.approx(1e-10 / 2e-3, rel=1e-3)
    assert huber_loss(zero - 5, zero, 1e-3).item() == pytest.approx(5 - 1e-3, rel=1e-6)
    one, other = tensors(2)
    torch.testing.assert_close(huber_loss(one, other, 1e-3), torch.sqrt((one - other) ** 2 + 1e-6).mean() - 1e-3)


def gaussian_noise(mean: float, std: float) -> Predict:
    """The exact noise prediction for clips drawn from N(mean, std^2)."""

    def predict(noisy: Tensor, timesteps: Tensor) -> Tensor:
        signal, spread = scales(timesteps)
        return spread * (noisy - signal * mean) / (signal**2 * std**2 + spread**2)

    return predict


def consistent_network(mean: float, std: float) -> Predict:
    """The network whose consistency function follows the probability flow of N(mean, std^2) down to timestep 0.

    The flow of a normal distribution keeps how many standard deviations a value is from the mean.
    """

    def predict(noisy: Tensor, timesteps: Tensor) -> Tensor:
        signal, spread = scales(timesteps)
        first_signal, first_spread = scales(torch.zeros_like(timesteps))
        deviations = (noisy - signal * mean) / (signal**2 * std**2 + spread**2).sqrt()
        end = first_signal * mean + (first_signal**2 * std**2 + first_spread**2).sqrt() * deviations
        scaled = 10 * timesteps.double().view(-1, 1, 1, 1, 1)
        skip, out = 0.25 / (scaled**2 + 0.25), scaled / (scaled**2 + 0.25).sqrt()
        denoised = torch.where(out > 0, (end - skip * noisy) / out.clamp(min=1e-9), 0)
        return (noisy - signal * denoised) / spread

    return predict


def loss_of(student: Predict, mean: float, std: float, level: float, task: ConsistencyTask = TASK) -> float:
    """The task's loss of a student against the exact teacher on clips drawn from N(mean, std^2)."""
    clean, noise = tensors(2)
    sample, teacher = Noised(mean + std * clean, noise, torch.full((4,), level)), gaussian_noise(mean, std)
    inputs = task.network_input(task.noisy(sample.clean, noise, sample.levels), sample.levels)
    return task.loss(sample, student(*inputs), Teaching(teacher(*inputs), None, student, None)).item()


@pytest.mark.parametrize("level", [4.0, 119.0, 499.0, 999.0])
def test_a_perfect_consistency_function_of_one_clip_has_no_loss(level: float) -> None:
    # For a single clip the solver's step is exact, whatever its length.
    assert loss_of(consistent_network(0.7, 0.0), 0.7, 0.0, level) < 1e-9
    assert loss_of(consistent_network(0.2, 0.0), 0.7, 0.0, level) > 1e-7


@pytest.mark.parametrize("level", [119.0, 499.0, 999.0])
def test_a_perfect_consistency_function_of_gaussian_clips_is_as_good_as_the_solver(level: float) -> None:
    perfect = consistent_network(0.3, 0.8)
    coarse = loss_of(perfect, 0.3, 0.8, level)
    # What is left is a DDIM step's own error, of second order in its length, in the square near 0 of the Huber loss.
    fine = loss_of(perfect, 0.3, 0.8, level, ConsistencyTask(solver_steps=500))
    assert coarse / fine == pytest.approx(2.5**4, rel=0.6 if level == 999 else 0.1)
    # The teacher itself, and the flow of other clips, are not consistent.
    for other in (gaussian_noise(0.3, 0.8), consistent_network(0.1, 0.8), consistent_network(0.3, 1.0)):
        assert loss_of(other, 0.3, 0.8, level) > 100 * coarse


def recording(network: Predict, seen: list[tuple[Tensor, Tensor]]) -> Predict:
    """`network`, noting what it is asked; it may not be asked with gradients."""

    def predict(noisy: Tensor, timesteps: Tensor) -> Tensor:
        assert not torch.is_grad_enabled()
        seen.append((noisy, timesteps))
        return network(noisy, timesteps)

    return predict


def constant(value: float) -> Callable[[Tensor, Tensor], Tensor]:
    """A network that always predicts one value."""
    return lambda noisy, timesteps: torch.full_like(noisy, value)


def test_the_solver_follows_the_guided_teacher_and_the_target_has_no_gradient() -> None:
    clean, noise, prediction = tensors(3)
    prediction.requires_grad_()
    guidance = torch.tensor([5.0, 7.5, 10.0, 15.0])
    asked_student: list[tuple[Tensor, Tensor]] = []
    asked_unconditional: list[tuple[Tensor, Tensor]] = []
    sample = Noised(clean, noise, LEVELS)
    teaching = Teaching(
        torch.full(SHAPE, 0.5, dtype=torch.float64),
        guidance,
        recording(constant(0.3), asked_student),
        recording(constant(0.2), asked_unconditional),
    )
    loss = TASK.loss(sample, prediction, teaching)

    noisy = TASK.noisy(clean, noise, LEVELS)
    ((unconditional_input, unconditional_timesteps),) = asked_unconditional
    assert torch.equal(unconditional_input, noisy)
    assert torch.equal(unconditional_timesteps, LEVELS)
    ((student_input, student_timesteps),) = asked_student
    following = torch.tensor([0.0, 4.0, 494.0, 994.0])
    assert torch.equal(student_timesteps, following)
    # (1 + w) * conditional - w * unconditional
    estimate = (0.5 + guidance * 0.3).double().view(-1, 1, 1, 1, 1).expand(SHAPE)
    signal, spread = scales(LEVELS)
    after_signal, after_spread = scales(following)
    less_noisy = after_signal * (noisy - spread * estimate) / signal + after_spread * estimate
    torch.testing.assert_close(student_input, less_noisy, rtol=1e-4, atol=1e-4)

    target = TASK.consistency(torch.full(SHAPE, 0.3), student_input, following)
    expected = huber_loss(TASK.consistency(prediction, noisy, LEVELS), target, 1e-3)
    torch.testing.assert_close(loss, expected)
    (gradient,) = torch.autograd.grad(loss, prediction)
    (theirs,) = torch.autograd.grad(expected, prediction)
    torch.testing.assert_close(gradient, theirs)


def test_a_teacher_with_embedded_guidance_is_followed_as_it_is() -> None:
    clean, noise, prediction = tensors(3)
    asked: list[tuple[Tensor, Tensor]] = []
    teacher_prediction = torch.full(SHAPE, 0.5)
    teaching = Teaching(teacher_prediction, torch.full((4,), 7.5), recording(constant(0.3), asked), None)
    TASK.loss(Noised(clean, noise, LEVELS), prediction, teaching)
    noisy = TASK.noisy(clean, noise, LEVELS)
    expected = ddim_step(teacher_prediction.double(), noisy, LEVELS, TASK.following(LEVELS), TASK.alphas)
    assert torch.equal(asked[0][0], expected)


def test_guidance_of_0_is_the_teachers_own_prediction() -> None:
    one, other = tensors(2)
    assert torch.equal(guided(one, other, torch.zeros(4)), one)
    torch.testing.assert_close(guided(one, other, torch.full((4,), -1.0)), other)


def test_an_unconditional_teacher_without_guidance_scales_is_refused() -> None:
    clean, noise, prediction = tensors(3)
    teaching = Teaching(prediction, None, constant(0.0), constant(0.0))
    with pytest.raises(ValueError, match="pass draw_guidance's"):
        TASK.loss(Noised(clean, noise, LEVELS), prediction, teaching)


def test_the_loss_of_a_lowered_network_is_taken_in_single_precision() -> None:
    clean, noise, prediction = (each.float() for each in tensors(3))
    lowered = prediction.bfloat16().requires_grad_()
    scales, ask = torch.full((4,), 7.5), lambda *_: prediction.bfloat16()
    loss = TASK.loss(Noised(clean, noise, LEVELS), lowered, Teaching(lowered.detach(), scales, ask, ask))
    assert loss.dtype == torch.float32
    loss.backward()
    assert lowered.grad is not None


def test_the_adversarys_noise_to_signal_ratios_are_sfvs() -> None:
    signal, spread = scales(TASK.draw_adversary_levels(40_000, torch.Generator().manual_seed(0)))
    ratios = (spread / signal).flatten()
    assert [ratios.quantile(share).item() for share in (0.05, 0.5, 0.95)] == pytest.approx(
        [0.071, 0.369, 1.93], rel=0.05
    )
