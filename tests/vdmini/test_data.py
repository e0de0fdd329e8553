"""Training clips are encoded as the pipeline encodes its own condition image."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableVideoDiffusionPipeline
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from vdmini.data import EncodedClips, encode_clips

CONDITION = {"frames_per_second": 8, "motion_bucket": 63, "noise_strength": 0.5}


@pytest.fixture
def clips() -> list[NDArray[np.uint8]]:
    """Three clips of two 32x32 frames."""
    generator = np.random.default_rng(0)
    return [generator.integers(0, 256, (2, 32, 32, 3), dtype=np.uint8) for _ in range(3)]


def pipelines_own(
    pipeline: StableVideoDiffusionPipeline, image: NDArray[np.uint8], seed: int
) -> tuple[Tensor, Tensor, Tensor]:
    """What the pipeline gives its denoiser for an image: condition latents, image embedding and time ids."""
    seen: dict[str, Tensor] = {}

    def look(denoiser: nn.Module, arguments: tuple[Tensor, ...], keywords: dict[str, Any]) -> None:
        seen.update(
            sample=arguments[0], **{name: keywords[name] for name in ("encoder_hidden_states", "added_time_ids")}
        )

    pipeline.set_progress_bar_config(disable=True)
    handle = pipeline.unet.register_forward_pre_hook(look, with_kwargs=True)
    pipeline(
        image=Image.fromarray(image),
        height=32,
        width=32,
        num_frames=2,
        num_inference_steps=1,
        max_guidance_scale=1.0,
        fps=8,
        motion_bucket_id=63,
        noise_aug_strength=0.5,
        generator=torch.Generator().manual_seed(seed),
        output_type="latent",
    )
    handle.remove()
    return seen["sample"][0, 0, 4:], seen["encoder_hidden_states"][0], seen["added_time_ids"][0]


@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_conditions_are_the_pipelines_own(
    tiny_pipeline: StableVideoDiffusionPipeline, clips: list[NDArray[np.uint8]], dtype: torch.dtype
) -> None:
    tiny_pipeline.to(dtype)
    encoded = encode_clips(tiny_pipeline, clips, **CONDITION)
    assert encoded.condition.dtype == encoded.embeddings.dtype == encoded.time_ids.dtype == torch.float32
    for position, clip in enumerate(clips):
        condition, embedding, time_ids = pipelines_own(tiny_pipeline, clip[0], seed=position)
        torch.testing.assert_close(encoded.condition[position].to(dtype), condition)
        torch.testing.assert_close(encoded.embeddings[position].to(dtype), embedding)
        torch.testing.assert_close(encoded.time_ids[position].to(dtype), time_ids)


@torch.no_grad()
def test_latents_are_the_means_of_every_frame(
    tiny_pipeline: StableVideoDiffusionPipeline, clips: list[NDArray[np.uint8]]
) -> None:
    encoded = encode_clips(tiny_pipeline, clips, **CONDITION)
    assert encoded.latents.shape == (3, 2, 4, 4, 4)
    assert encoded.scaling_factor == 0.18215
    for clip, latents in zip(clips, encoded.latents, strict=True):
        frames = tiny_pipeline.video_processor.preprocess([Image.fromarray(frame) for frame in clip])
        torch.testing.assert_close(latents, tiny_pipeline.vae.encode(frames).latent_dist.mode())


def test_a_clips_tensors_do_not_depend_on_its_neighbours(
    tiny_pipeline: StableVideoDiffusionPipeline, clips: list[NDArray[np.uint8]]
) -> None:
    forward = encode_clips(tiny_pipeline, clips, **CONDITION)
    backward = encode_clips(tiny_pipeline, iter(clips[::-1]), **CONDITION)
    assert len(forward) == len(backward) == 3
    assert torch.equal(forward.latents, backward.latents.flip(0))
    assert torch.equal(forward.embeddings, backward.embeddings.flip(0))
    # The noise on the condition image belongs to the position, which the middle clip alone keeps.
    kept = [torch.equal(one, other) for one, other in zip(forward.condition, backward.condition.flip(0), strict=True)]
    assert kept == [False, True, False]
    unnoised = {**CONDITION, "noise_strength": 0.0}
    still = encode_clips(tiny_pipeline, clips, **unnoised).condition
    assert torch.equal(still, encode_clips(tiny_pipeline, clips[::-1], **unnoised).condition.flip(0))


def test_each_clip_is_reported_once(
    tiny_pipeline: StableVideoDiffusionPipeline, clips: list[NDArray[np.uint8]]
) -> None:
    reported: list[None] = []
    encode_clips(tiny_pipeline, clips, **CONDITION, on_clip=lambda: reported.append(None))
    assert len(reported) == 3


def test_clips_are_saved_and_loaded_exactly(
    tiny_pipeline: StableVideoDiffusionPipeline, clips: list[NDArray[np.uint8]], tmp_path: Path
) -> None:
    # A factor that has no short decimal form.
    encoded = dataclasses.replace(encode_clips(tiny_pipeline, clips, **CONDITION), scaling_factor=1 / 3)
    encoded.save(tmp_path / "clips.safetensors")
    loaded = EncodedClips.load(tmp_path / "clips.safetensors")
    assert loaded.scaling_factor == 1 / 3
    for name in ("latents", "condition", "embeddings", "time_ids"):
        one, other = getattr(encoded, name), getattr(loaded, name)
        assert one.dtype == other.dtype
        assert torch.equal(one, other), name
