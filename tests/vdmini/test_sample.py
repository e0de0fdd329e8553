"""A clip depends on its own request, not on the batch it is sampled in."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline, StableVideoDiffusionPipeline, UniPCMultistepScheduler, WanPipeline
from numpy.typing import NDArray
from tiny_transformers import TINY, TRIED
from tiny_unets import ANIMATEDIFF, animatediff_pipeline, animatediff_unet, videocrafter_pipeline

from vdmini.models.registry import family_of, pipeline_denoiser
from vdmini.requests import ClipRequest, SampleSettings
from vdmini.sample import batches, draw_prompts, require_clip, sample_clips, sample_video

pytestmark = [
    pytest.mark.filterwarnings("ignore:In CPU autocast, but the target dtype is not supported:UserWarning"),
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:__array_wrap__ must accept context:DeprecationWarning"),
]

SAMPLED = [name for name, tiny in TRIED.items() if tiny.samples]
SETTINGS = SampleSettings(steps=2, frames=3, height=32, width=64)


def request(seed: int, picture: int = 0) -> ClipRequest:
    """A request for a random picture of the clips' own size."""
    image = np.random.default_rng(picture).integers(0, 256, (32, 64, 3), dtype=np.uint8)
    return ClipRequest(f"clip-{seed}", seed, image)


def distance(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> int:
    """The largest difference in grey levels."""
    return int(np.abs(one.astype(int) - other.astype(int)).max())


@pytest.mark.parametrize("max_guidance", [1.0, 3.0])
def test_a_clip_is_the_same_in_any_batch(tiny_pipeline: StableVideoDiffusionPipeline, max_guidance: float) -> None:
    settings = dataclasses.replace(SETTINGS, max_guidance=max_guidance)
    requests = [request(5, 0), request(6, 1), request(7, 2)]
    together = sample_clips(tiny_pipeline, requests, settings)
    for each, clip in zip(requests, together, strict=True):
        # Guidance multiplies the rounding that differs between batch sizes.
        assert distance(sample_clips(tiny_pipeline, [each], settings)[0], clip) <= max_guidance
    assert distance(together[0], together[1]) > 1


def test_clips_are_uint8_videos_of_the_size_asked_for(tiny_pipeline: StableVideoDiffusionPipeline) -> None:
    clips = sample_clips(tiny_pipeline, [request(0), request(1)], SETTINGS)
    assert clips.dtype == np.uint8
    assert clips.shape == (2, 3, 32, 64, 3)
    # Neither floats cut to 0 and 1 nor values that wrapped around.
    assert len(np.unique(clips)) > 20


def test_the_seed_decides_the_clip(tiny_pipeline: StableVideoDiffusionPipeline) -> None:
    first = sample_clips(tiny_pipeline, [request(4)], SETTINGS)
    assert sample_clips(tiny_pipeline, [request(4)], SETTINGS).tobytes() == first.tobytes()
    assert distance(sample_clips(tiny_pipeline, [request(5)], SETTINGS), first) > 1


def test_the_condition_image_decides_the_clip(tiny_pipeline: StableVideoDiffusionPipeline) -> None:
    one, other = (sample_clips(tiny_pipeline, [request(4, picture)], SETTINGS) for picture in (0, 1))
    assert distance(one, other) > 1


@pytest.mark.parametrize(
    "change",
    [{"steps": 3}, {"frames_per_second": 20}, {"motion_bucket": 10}, {"noise_strength": 0.5}, {"max_guidance": 1.0}],
)
def test_every_setting_reaches_the_pipeline(
    tiny_pipeline: StableVideoDiffusionPipeline, change: dict[str, float]
) -> None:
    changed = dataclasses.replace(SETTINGS, **change)
    one, other = (sample_clips(tiny_pipeline, [request(4)], settings) for settings in (SETTINGS, changed))
    assert distance(one, other) > 0


def test_batches_keep_every_request_in_order() -> None:
    requests = [request(seed) for seed in range(5)]
    cut = [*batches(requests, 2)]
    assert [len(batch) for batch in cut] == [2, 2, 1]
    assert [each.seed for batch in cut for each in batch] == [0, 1, 2, 3, 4]
    assert [*batches([], 2)] == []


@pytest.mark.parametrize("name", SAMPLED)
def test_a_size_that_a_transformer_cannot_make_is_refused_with_one_that_it_can(name: str) -> None:
    tiny = TINY[name]
    pipeline = tiny.build_pipeline(tiny.build_denoiser())
    settings = tiny.settings
    for height, width in ((tiny.height + 8, tiny.width), (tiny.height, tiny.width - 4), (0, tiny.width), (1, 1)):
        wrong = dataclasses.replace(settings, height=height, width=width)
        with pytest.raises(ValueError, match=rf"not {height}x{width} pixels: ask for \d+x\d+$") as caught:
            sample_clips(pipeline, tiny.requests[:1], wrong)
        height, width = map(int, str(caught.value).rpartition(" ")[2].split("x"))
        right = dataclasses.replace(settings, height=height, width=width)
        require_clip(right, family_of(pipeline_denoiser(pipeline)).clip_grid(pipeline))
        if (height, width) == (tiny.height, tiny.width):
            assert sample_clips(pipeline, tiny.requests[:1], right).shape == (1, tiny.frames, height, width, 3)


def test_lengths_that_a_model_cannot_make_are_refused(tiny_pipeline: StableVideoDiffusionPipeline) -> None:
    longest = ANIMATEDIFF["motion_max_seq_length"]
    for pipeline, changes, said in (
        (tiny_pipeline, {"frames": 1}, "2 frames or more, not 1"),
        (tiny_pipeline, {"width": 36}, "not 32x36 pixels: ask for 32x32"),
        (animatediff_pipeline(animatediff_unet()), {"frames": longest + 1}, f"{longest} frames at most"),
        (animatediff_pipeline(animatediff_unet()), {"height": 20}, "not 20x64 pixels: ask for 16x64"),
        (videocrafter_pipeline("ddim"), {"height": 33}, "not 33x64 pixels: ask for 32x64"),
        (TINY["mochi"].build_pipeline(TINY["mochi"].build_denoiser()), {"frames": 1, "steps": 1}, "2 steps or more"),
    ):
        image = request(0).image if pipeline is tiny_pipeline else None
        asked = [dataclasses.replace(request(0), prompt="a", image=image)]
        with pytest.raises(ValueError, match=said):
            sample_clips(pipeline, asked, dataclasses.replace(SETTINGS, **changes))


@pytest.mark.parametrize("guidance", [1.0, 3.0])
@pytest.mark.parametrize("name", [*SAMPLED, "svd", "animatediff", "ddim", "consistency"])
def test_a_family_says_how_often_its_pipeline_runs_the_denoiser_in_a_step(
    tiny_pipeline: StableVideoDiffusionPipeline, name: str, guidance: float
) -> None:
    settings = dataclasses.replace(SETTINGS, steps=3, guidance=guidance, max_guidance=guidance)
    asked = dataclasses.replace(request(0), prompt="a cat", image=None)
    if name in TINY:
        tiny = TINY[name]
        pipeline, asked = tiny.build_pipeline(tiny.build_denoiser()), tiny.requests[0]
        settings = dataclasses.replace(settings, frames=tiny.frames, height=tiny.height, width=tiny.width)
    elif name == "svd":
        pipeline, asked = tiny_pipeline, request(0)
    else:
        pipeline = animatediff_pipeline(animatediff_unet()) if name == "animatediff" else videocrafter_pipeline(name)
    denoiser, rows = pipeline_denoiser(pipeline), []
    family = family_of(denoiser)
    with denoiser.register_forward_hook(lambda *each: rows.append(len(each[-1][0]))):
        sample_clips(pipeline, [asked], settings)
    assert sum(rows) == settings.steps * family.passes_per_step(denoiser, settings)
    assert max(rows) == family.passes_at_once(denoiser, settings)


def wan_of_two_experts() -> DiffusionPipeline:
    """Wan 2.2's kind of pipeline."""
    tiny = TINY["wan"]
    parts = tiny.build_pipeline(tiny.build_denoiser()).components
    second = TINY["wan"].build_denoiser()
    for weight in second.parameters():
        weight.data.mul_(0.9)
    pipeline = WanPipeline(**{**parts, "transformer_2": second}, boundary_ratio=0.875)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def test_every_setting_reaches_the_pipeline_and_leaves_it_as_it_was() -> None:
    asked = dataclasses.replace(
        TINY["wan"].settings, steps=4, guidance=4.0, second_guidance=3.0, boundary=0.7, shift=5.0,
        scheduler="UniPCMultistepScheduler", negative_prompt="red dog",
    )  # fmt: skip
    pipeline, cat = wan_of_two_experts(), TINY["wan"].requests[0]
    own = pipeline.scheduler
    found = sample_video(pipeline, [cat], asked)
    assert pipeline.scheduler is own
    assert pipeline.config.boundary_ratio == 0.875
    direct = wan_of_two_experts()
    direct.scheduler = UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=5.0
    )  # fmt: skip
    direct.register_to_config(boundary_ratio=0.7)
    expected = direct(
        prompt="a cat runs", negative_prompt="red dog", num_frames=asked.frames, height=asked.height, width=asked.width,
        num_inference_steps=4, guidance_scale=4.0, guidance_scale_2=3.0, generator=cat.generator(), output_type="np",
    ).frames  # fmt: skip
    assert np.array_equal(found, expected)
    # And every one of them counts.
    for name in ("guidance", "second_guidance", "boundary", "shift", "scheduler", "negative_prompt"):
        without = sample_video(pipeline, [cat], dataclasses.replace(asked, **{name: None}))
        assert not np.array_equal(found, without), name


def test_sigmas_are_those_of_a_pipeline_that_takes_them() -> None:
    tiny, sigmas = TINY["hunyuanvideo"], (1.0, 0.8, 0.3)
    settings = dataclasses.replace(tiny.settings, steps=3, sigmas=sigmas)
    pipeline = tiny.build_pipeline(tiny.build_denoiser())
    direct = pipeline(
        prompt=[each.text() for each in tiny.requests], num_frames=settings.frames, height=settings.height,
        width=settings.width, num_inference_steps=3, sigmas=[*sigmas],
        generator=[each.generator() for each in tiny.requests], output_type="np",
    ).frames  # fmt: skip
    assert np.array_equal(sample_video(pipeline, tiny.requests, settings), direct)
    assert not np.array_equal(sample_video(pipeline, tiny.requests, dataclasses.replace(settings, sigmas=None)), direct)


@torch.inference_mode()
def test_a_few_step_sampler_denoises_and_adds_noise_of_each_clips_seed() -> None:
    tiny, levels = TINY["wan"], (0.9, 0.6, 0.2)
    settings = dataclasses.replace(
        tiny.settings, steps=3, guidance=1.0, scheduler="FlowMatchLCMScheduler", shift=5.0, sigmas=levels
    )  # fmt: skip
    pipeline: Any = tiny.build_pipeline(tiny.build_denoiser())
    own = pipeline.scheduler
    found = draw_prompts(pipeline, tiny.requests, settings, {"output_type": "latent"})
    assert pipeline.scheduler is own
    assert "step" not in vars(own)
    shifted = [5 * level / (1 + 4 * level) for level in levels]
    for request_, latents in zip(tiny.requests, found, strict=True):
        # By hand, and alone: the few-step samplers of Self-Forcing and rCM.
        words = pipeline.encode_prompt(request_.text(), do_classifier_free_guidance=False, max_sequence_length=512)[0]
        generator = request_.generator()
        noisy = torch.randn((1, *latents.shape), generator=generator)
        for level, following in zip(shifted, (*shifted[1:], 0.0), strict=True):
            velocity = pipeline.transformer(noisy, torch.tensor([1000 * level]), words).sample
            clean = noisy - level * velocity
            noisy = (1 - following) * clean + following * torch.randn(clean.shape, generator=generator)
        assert np.allclose(latents, noisy[0].numpy(), atol=1e-4)


@pytest.mark.parametrize(
    ("name", "changed", "said"),
    [
        ("mochi", {"second_guidance": 2.0}, "a MochiPipeline takes no guidance_scale_2"),
        ("wan", {"boundary": 0.5}, "a WanPipeline with one expert has no boundary"),
        ("wan", {"sigmas": (1.0, 0.5, 0.2), "steps": 2}, "3 sigmas for 2 steps"),
        ("cogvideox-2b", {"sigmas": (1.0, 0.5), "steps": 2}, "a CogVideoXDDIMScheduler takes no sigmas"),
        ("cogvideox-2b", {"shift": 2.0}, "a CogVideoXDDIMScheduler has no shift"),
        ("wan", {"scheduler": "WanPipeline"}, "no scheduler 'WanPipeline'"),
    ],
)
def test_a_setting_that_a_pipeline_does_not_have_is_refused(name: str, changed: dict[str, Any], said: str) -> None:
    tiny = TINY[name]
    pipeline = tiny.build_pipeline(tiny.build_denoiser())
    with pytest.raises(ValueError, match=said):
        sample_clips(pipeline, tiny.requests, dataclasses.replace(tiny.settings, **changed))


def test_a_model_that_reads_no_text_refuses_settings_of_texts(tiny_pipeline: StableVideoDiffusionPipeline) -> None:
    with pytest.raises(ValueError, match="reads no text, so it has no negative_prompt"):
        sample_clips(tiny_pipeline, [request(0)], dataclasses.replace(SETTINGS, negative_prompt="red"))


def test_an_image_that_a_model_does_not_take_is_refused() -> None:
    tiny = TINY["wan"]
    pipeline = tiny.build_pipeline(tiny.build_denoiser())
    with pytest.raises(ValueError, match="has an image, which this model does not take"):
        sample_clips(pipeline, [dataclasses.replace(request(0), prompt="a cat")], tiny.settings)
