"""VideoCrafter's pipeline: the published sampling, clip by clip, and the same after saving and loading."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import forked
import numpy as np
import pytest
import torch
from tiny_unets import videocrafter_pipeline
from torch import Tensor

from vdmini.models.registry import family_of
from vdmini.models.videocrafter_pipeline import VideoCrafterPipeline, consistency_timesteps
from vdmini.prune import apply_plan
from vdmini.requests import ClipRequest, SampleSettings
from vdmini.rules import make_plan
from vdmini.sample import sample_clips

SETTINGS = SampleSettings(steps=2, frames=3, height=16, width=24)
SAMPLERS = ("consistency", "ddim")


@pytest.fixture(scope="module", params=SAMPLERS)
def pipeline(request: pytest.FixtureRequest) -> VideoCrafterPipeline:
    """The tiny pipeline, with each of the two samplers."""
    return videocrafter_pipeline(request.param)


@pytest.fixture(scope="module")
def turbo() -> VideoCrafterPipeline:
    """The tiny pipeline of a consistency model."""
    return videocrafter_pipeline("consistency")


@pytest.fixture(scope="module")
def ddim() -> VideoCrafterPipeline:
    """The tiny pipeline of a diffusion model."""
    return videocrafter_pipeline("ddim")


def clip(pipeline: VideoCrafterPipeline, *requests: ClipRequest, **changes: Any) -> np.ndarray:
    """B T H W C float32 from the family's `sample`."""
    settings = dataclasses.replace(SETTINGS, **changes)
    return family_of(pipeline.unet).sample(pipeline, requests, settings)


ONE, TWO = ClipRequest("one", 5, prompt="a cat"), ClipRequest("two", 6, prompt="dogs bark")


def test_clips_are_videos_that_do_not_depend_on_the_batch(pipeline: VideoCrafterPipeline) -> None:
    together = clip(pipeline, ONE, TWO)
    assert together.shape == (2, 3, 16, 24, 3)
    assert together.dtype == np.float32
    assert together.min() >= 0
    assert together.max() <= 1
    assert together.std() > 0.01
    for request, video in zip((ONE, TWO), together, strict=True):
        # Guidance multiplies the rounding that differs between batch sizes.
        assert np.abs(clip(pipeline, request)[0] - video).max() < 1e-3
    assert np.abs(together[0] - together[1]).max() > 0.01
    assert sample_clips(pipeline, [ONE], SETTINGS).dtype == np.uint8


@pytest.mark.parametrize("change", [{"steps": 3}, {"guidance": 2.0}, {"frames_per_second": 20}])
def test_every_setting_reaches_the_network(pipeline: VideoCrafterPipeline, change: dict[str, float]) -> None:
    assert np.abs(clip(pipeline, ONE, **change) - clip(pipeline, ONE)).max() > 1e-5


def test_seed_and_prompt_decide_the_clip(pipeline: VideoCrafterPipeline) -> None:
    first = clip(pipeline, ONE)
    assert np.array_equal(clip(pipeline, dataclasses.replace(ONE, name="again")), first)
    assert np.abs(clip(pipeline, dataclasses.replace(ONE, seed=9)) - first).max() > 0.01
    assert np.abs(clip(pipeline, dataclasses.replace(ONE, prompt="a dog")) - first).max() > 1e-5
    with pytest.raises(ValueError, match="no prompt"):
        clip(pipeline, ClipRequest("bare", 1))


def sinusoids(scale: float) -> Tensor:
    """The embedding of a guidance scale as T2V-Turbo writes it: 128 sines, then 128 cosines."""
    angles = [1000 * scale * math.exp(-math.log(10000) * index / 127) for index in range(128)]
    return torch.tensor([*map(math.sin, angles), *map(math.cos, angles)])


def test_a_consistency_model_is_asked_as_published(turbo: VideoCrafterPipeline) -> None:
    calls: list[dict[str, Any]] = []
    hook = turbo.unet.register_forward_pre_hook(
        lambda module, inputs, named: calls.append({**named, "timestep": int(inputs[1])}), with_kwargs=True
    )
    turbo([ONE.text()], [ONE.generator()], 16, 24, 2, fps=16)
    hook.remove()
    assert [call["timestep"] for call in calls] == [*range(999, 98, -60)]
    assert {int(call["fps"]) for call in calls} == {16}
    for call in calls:
        assert torch.allclose(call["timestep_cond"], sinusoids(7.5)[None], atol=2e-3)
        motion = 0.05 if call["timestep"] >= 500 else 0.0
        assert torch.allclose(call["motion_cond"], sinusoids(motion)[None], atol=1e-4)


@pytest.mark.parametrize("sampler", ["consistency", "ddim"])
def test_steps_read_nothing_from_the_device(sampler: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # The meta device has no values to read; on a GPU a read waits for all that is queued.
    pipeline: Any = videocrafter_pipeline(sampler).to("meta")
    latents: list[Tensor] = []
    monkeypatch.setattr(pipeline, "_decode", latents.append)
    pipeline([ONE.text()], [ONE.generator()], 16, 24, 2, num_inference_steps=3)
    assert latents[0].is_meta


def test_consistency_timesteps_stay_on_the_distilled_grid() -> None:
    for steps in (1, 4, 7, 16, 200):
        timesteps = consistency_timesteps(steps)
        assert len({*timesteps}) == steps
        assert timesteps[0] == 999
        assert min(timesteps) >= 4
        assert {timestep % 5 for timestep in timesteps} == {4}
    for steps in (0, 201):
        with pytest.raises(ValueError, match="between 1 and 200"):
            consistency_timesteps(steps)


def test_ddim_takes_the_true_noise_back_to_the_clean_latents(
    ddim: VideoCrafterPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    clean = torch.randn(1, 4, 3, 8, 12)
    alphas = ddim.scheduler.alphas_cumprod
    # VideoCrafter2's own table: the latents shrink to 0.7 over the first 400 timesteps.
    scales = np.concatenate([np.linspace(1, 0.7, 400), np.full(600, 0.7)])
    noises: list[Tensor] = []

    def predict(latents: Tensor, timestep: Tensor, *_: object) -> Tensor:
        alpha, scale = alphas[timestep], float(scales[int(timestep)])
        noises.append((latents - alpha.sqrt() * scale * clean) / (1 - alpha).sqrt())
        return noises[-1]

    monkeypatch.setattr(ddim, "_predict", predict)
    monkeypatch.setattr(ddim, "_decode", lambda latents: latents)
    output = ddim([ONE.text()], [ONE.generator()], 16, 24, 3, num_inference_steps=50, eta=0.0).frames
    assert len(noises) == 50
    expected = alphas[0].sqrt() * clean + (1 - alphas[0]).sqrt() * noises[0][:1]
    assert torch.allclose(output, expected, atol=1e-3)


def test_classifier_free_guidance_weighs_the_prompt(ddim: VideoCrafterPipeline) -> None:
    other = dataclasses.replace(ONE, prompt="rain")
    assert np.array_equal(clip(ddim, ONE, guidance=0.0), clip(ddim, other, guidance=0.0))
    assert np.array_equal(clip(ddim, ONE, guidance=12.0), clip(ddim, ONE))
    calls: list[Tensor] = []
    hook = ddim.unet.register_forward_pre_hook(lambda module, inputs: calls.append(inputs[2]))
    clip(ddim, ONE)
    hook.remove()
    assert torch.equal(calls[0], ddim._encode_text(["", ONE.text()]))


def test_impossible_requests_are_refused(turbo: VideoCrafterPipeline) -> None:
    with pytest.raises(ValueError, match="2 prompts need as many generators"):
        turbo(["a", "b"], [ONE.generator()])
    with pytest.raises(ValueError, match="do not divide by 2"):
        turbo(["a"], [ONE.generator()], height=17)


RELOAD = """
import sys, numpy, torch, vdmini
from diffusers import DiffusionPipeline
from vdmini.sample import ClipRequest, SampleSettings, sample_clips
weights = torch.load(sys.argv[2], weights_only=True)
for reader in (vdmini.VideoCrafterPipeline, DiffusionPipeline):
    pipeline = reader.from_pretrained(sys.argv[1])
    assert type(pipeline) is vdmini.VideoCrafterPipeline, type(pipeline)
    assert type(pipeline.unet) is vdmini.VideoCrafterUNet, type(pipeline.unet)
    assert weights.keys() == pipeline.unet.to_original().keys()
    assert all(torch.equal(weights[name], tensor) for name, tensor in pipeline.unet.to_original().items())
clips = sample_clips(pipeline, [ClipRequest("one", 5, prompt="a cat")], SampleSettings(2, 3, 16, 24))
assert numpy.array_equal(clips, numpy.load(sys.argv[3]))
"""


def test_a_saved_student_pipeline_is_the_same_in_another_process(tmp_path: Path) -> None:
    pipeline = videocrafter_pipeline("consistency")
    pipeline.unet = apply_plan(pipeline.unet, make_plan(pipeline.unet))
    pipeline.save_pretrained(tmp_path / "student")
    torch.save(pipeline.unet.to_original(), tmp_path / "weights.pt")
    np.save(tmp_path / "clips.npy", sample_clips(pipeline, [ONE], SETTINGS))
    done = forked.run("-c", RELOAD, *(tmp_path / name for name in ("student", "weights.pt", "clips.npy")))
    assert done.returncode == 0, done.stderr
    for complaint in ("newly initialized", "Expected types", "not expected"):
        assert complaint not in done.stderr
