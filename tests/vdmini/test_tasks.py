"""What holds for every task: its functions invert one another, its draws are its generator's, options are checked."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from vdmini.tasks import TASKS, make_task
from vdmini.tasks.base import Noised, Task, Teaching
from vdmini.tasks.consistency import ConsistencyTask
from vdmini.tasks.edm import EdmTask
from vdmini.tasks.epsilon import EpsilonTask
from vdmini.tasks.flow import FlowTask
from vdmini.tasks.sfv import SfvTask

EVERY: dict[str, Task] = {
    **{name: make_task(name, {}) for name in TASKS},
    "mochi": FlowTask(inverted=True, shift=1.0),
    "videocrafter2": EpsilonTask(smallest_scale=0.7),
    "cogvideox": EpsilonTask(prediction="v", zero_terminal_snr=True, snr_shift=3.0),
}
# A consistency task's loss asks the networks themselves.
BY_TARGET = [name for name in EVERY if name != "consistency"]
SHAPE = (3, 2, 4, 2, 3)


def unreachable(network_input: Tensor, timesteps: Tensor) -> Tensor:
    """A network that the task has no need to ask."""
    raise AssertionError("the task asked a network again")


def sample_of(task: Task, seed: int) -> Noised:
    """Three double-precision clips at levels of the task's own."""
    generator = torch.Generator().manual_seed(seed)
    clean, noise = (torch.randn(SHAPE, generator=generator, dtype=torch.float64) for _ in range(2))
    return Noised(clean, noise, task.draw_levels(SHAPE[0], generator))


def true_prediction(task: Task, sample: Noised) -> Tensor:
    """What a perfect network answers, worked out from the noisy clip's derivative along its path."""
    angles = sample.levels.double().view(-1, 1, 1, 1, 1)
    if isinstance(task, EdmTask | SfvTask):
        angles = angles.atan()
        return angles.cos() * sample.noise - angles.sin() * sample.clean
    if isinstance(task, FlowTask):
        return (sample.clean - sample.noise) if task.inverted else (sample.noise - sample.clean)
    if isinstance(task, EpsilonTask) and task.prediction == "v":
        zero = torch.zeros_like(sample.clean)
        # v is the noisy clip's derivative by the angle: signal and noise trade places.
        signal = task.noisy(torch.ones_like(zero), zero, sample.levels)
        spread = task.noisy(zero, torch.ones_like(zero), sample.levels)
        return signal * sample.noise - spread * sample.clean
    return sample.noise


@pytest.mark.parametrize("name", EVERY)
@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_the_true_prediction_denoises_to_the_clean_clip(name: str, seed: int) -> None:
    task = EVERY[name]
    sample = sample_of(task, seed)
    noisy = task.noisy(sample.clean, sample.noise, sample.levels)
    prediction = true_prediction(task, sample)
    torch.testing.assert_close(task.denoised(prediction, noisy, sample.levels), sample.clean, rtol=1e-6, atol=1e-6)
    assert not torch.allclose(task.denoised(prediction + 1, noisy, sample.levels), sample.clean, atol=1e-6)


@pytest.mark.parametrize("name", BY_TARGET)
@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_the_true_prediction_has_no_loss_and_any_other_has(name: str, seed: int) -> None:
    task = EVERY[name]
    sample = sample_of(task, seed)
    prediction = true_prediction(task, sample)
    teaching = Teaching(prediction, None, unreachable, None)
    assert task.loss(sample, prediction, teaching).item() < 1e-12
    assert task.loss(sample, prediction + 0.1, teaching).item() > 1e-6


@pytest.mark.parametrize("name", EVERY)
def test_each_clip_has_its_own_level(name: str) -> None:
    task = EVERY[name]
    sample = sample_of(task, 1)
    noisy = task.noisy(sample.clean, sample.noise, sample.levels)
    network_input, timesteps = task.network_input(noisy, sample.levels)
    denoised = task.denoised(sample.noise, noisy, sample.levels)
    assert timesteps.shape == (SHAPE[0],)
    for clip in range(SHAPE[0]):
        one = slice(clip, clip + 1)
        alone = task.noisy(sample.clean[one], sample.noise[one], sample.levels[one])
        torch.testing.assert_close(alone, noisy[one])
        its_input, its_timestep = task.network_input(alone, sample.levels[one])
        torch.testing.assert_close(its_input, network_input[one])
        torch.testing.assert_close(its_timestep, timesteps[one])
        torch.testing.assert_close(task.denoised(sample.noise[one], alone, sample.levels[one]), denoised[one])


@pytest.mark.parametrize("name", BY_TARGET)
def test_the_loss_is_the_mean_over_clips(name: str) -> None:
    task = EVERY[name]
    sample = sample_of(task, 2)
    prediction = sample.clean.flip(0)
    teaching = Teaching(prediction, None, unreachable, None)
    together = task.loss(sample, prediction, teaching)
    alone = [
        task.loss(Noised(sample.clean[one], sample.noise[one], sample.levels[one]), prediction[one], teaching)
        for one in (slice(clip, clip + 1) for clip in range(SHAPE[0]))
    ]
    torch.testing.assert_close(torch.stack(alone).mean(), together)


@pytest.mark.parametrize("name", BY_TARGET)
def test_a_lowered_prediction_is_compared_in_single_precision(name: str) -> None:
    task = EVERY[name]
    drawn = sample_of(task, 3)
    sample = Noised(drawn.clean.float(), drawn.noise.float(), drawn.levels)
    lowered = torch.full(SHAPE, 0.3).bfloat16().requires_grad_()
    teaching = Teaching(lowered, None, unreachable, None)
    loss = task.loss(sample, lowered, teaching)
    assert loss.dtype == torch.float32
    assert torch.equal(loss, task.loss(sample, lowered.float(), teaching))
    loss.backward()
    assert lowered.grad is not None
    assert lowered.grad.dtype == torch.bfloat16


def draws(task: Task, seed: int, share: slice) -> list[Tensor]:
    """Everything that a step draws, and one process's share of it."""
    generator = torch.Generator().manual_seed(seed)
    levels, guidance = task.draw_levels(8, generator), task.draw_guidance(8, generator)
    adversary = task.draw_adversary_levels(8, generator)
    drawn = [levels, adversary, torch.randn(8, generator=generator, device="cpu")]
    return [each[share] for each in (drawn if guidance is None else [*drawn, guidance])]


@pytest.mark.parametrize("name", EVERY)
def test_processes_draw_the_same_batch_whatever_else_they_do(name: str) -> None:
    task = EVERY[name]
    whole = draws(task, 5, slice(None))
    for each in whole:
        assert each.shape == (8,)
        assert each.dtype == torch.float32
        assert each.isfinite().all()
    for process in range(2):
        torch.manual_seed(process)
        # A process's own default device must not move the draws.
        with torch.device("meta" if process else "cpu"):
            shares = draws(task, 5, slice(process, None, 2))
        for share, each in zip(shares, whole, strict=True):
            assert torch.equal(share, each[process::2])
    assert not torch.equal(draws(task, 6, slice(None))[1], whole[1])


def test_options_replace_the_published_defaults() -> None:
    assert make_task("edm", {}) == EdmTask(sigma_mean=0.7, sigma_std=1.6, adversary_mean=-1.0, adversary_std=1.0)
    assert make_task("edm", {"sigma_mean": 0}) == EdmTask(sigma_mean=0.0)
    assert make_task("consistency", {"solver_steps": 50.0}) == ConsistencyTask(solver_steps=50)
    assert make_task("epsilon", {"prediction": "v", "zero_terminal_snr": True}) == EpsilonTask(
        prediction="v", zero_terminal_snr=True
    )
    assert make_task("flow", {"guidance": 6}) == FlowTask(guidance=6.0)
    assert make_task("flow", {"guidance": None}) == FlowTask()


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("concistency", {}, r"unknown task 'concistency' \(did you mean 'consistency'\?\): choose one of edm, sfv,"),
        ("edm", {"sigma_men": 1}, r"'edm' has no option 'sigma_men' \(did you mean 'sigma_mean'\?\): its options are"),
        ("edm", {"shift": 7}, "'edm' has no option 'shift': its options are sigma_mean"),
        ("edm", {"sigma_std": "wide"}, "'sigma_std' takes a number, not 'wide'"),
        ("edm", {"sigma_std": None}, "'sigma_std' takes a number, not None"),
        ("edm", {"sigma_std": True}, "'sigma_std' takes a number, not True"),
        ("edm", {"sigma_std": 0}, "sigma_std must be above 0, not 0.0"),
        ("edm", {"adversary_std": math.nan}, "adversary_std must be above 0, not nan"),
        ("sfv", {"generator_steps": 3.5}, "'generator_steps' takes a whole number, not 3.5"),
        ("sfv", {"generator_steps": 1}, "generator_steps must be at least 2, not 1"),
        ("sfv", {"sigma_max": 0.001}, "sigma_max must be above sigma_min = 0.002, not 0.001"),
        ("consistency", {"solver_steps": 300}, "solver_steps must divide 1000, which 300 does not"),
        ("consistency", {"solver_steps": math.inf}, "'solver_steps' takes a whole number, not inf"),
        ("consistency", {"guidance_min": 20}, "guidance_max 15.0 is below guidance_min 20.0"),
        ("flow", {"guidance": "6"}, "'guidance' takes a number or nothing, not '6'"),
        ("flow", {"guidance": math.inf}, "guidance must be a finite number, not inf"),
        ("flow", {"inverted": 2}, "'inverted' takes true or false, not 2"),
        ("flow", {"shift": -1}, "shift must be above 0, not -1.0"),
        ("epsilon", {"prediction": "x0"}, "prediction 'x0' is unknown: choose one of epsilon, v"),
        ("epsilon", {"prediction": 1}, "'prediction' takes a name, not 1"),
        ("epsilon", {"beta_schedule": "cosine"}, "'cosine' is unknown: choose one of scaled_linear, linear"),
        ("epsilon", {"zero_terminal_snr": True}, "choose prediction 'v'"),
        ("epsilon", {"shrinking_timesteps": 1}, "shrinking_timesteps must be at least 2, not 1"),
    ],
)
def test_a_wrong_task_or_option_is_refused(name: str, options: dict[str, float | str | None], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_task(name, options)
