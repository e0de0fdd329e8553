"""A cache of Stable Video Diffusion's clips holds what the pipeline itself makes of each clip's first frame."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableVideoDiffusionPipeline
from PIL import Image
from tiny_clips import NoiseClips, svd_pipeline
from torch import Tensor, nn

from vdmini.conditioning.base import EncodeSettings, TrainingClip
from vdmini.latents import LatentCache, encode_to_cache

# diffusers' image processor meets numpy 2 that way.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword")
SETTINGS = EncodeSettings(frames_per_second=8, motion_bucket=63, noise_strength=0.5)
CLIPS = NoiseClips(3, 2, 32, 32)


@dataclass(frozen=True)
class Reversed:
    """The same clips from the last to the first."""

    clips: NoiseClips

    @property
    def names(self) -> tuple[str, ...]:
        return self.clips.names[::-1]

    def clip(self, index: int) -> TrainingClip:
        return self.clips.clip(len(self.names) - 1 - index)


def pipelines_own(pipeline: StableVideoDiffusionPipeline, clip: TrainingClip) -> dict[str, Tensor]:
    """What the pipeline gives its denoiser for a clip's first frame, with noise from the clip's seed."""
    seen: dict[str, Tensor] = {}

    def look(denoiser: nn.Module, arguments: tuple[Tensor, ...], keywords: dict[str, Any]) -> None:
        seen.update(
            condition=arguments[0][0, 0, 4:],
            embeddings=keywords["encoder_hidden_states"][0],
            time_ids=keywords["added_time_ids"][0],
        )

    pipeline.set_progress_bar_config(disable=True)
    handle = pipeline.unet.register_forward_pre_hook(look, with_kwargs=True)
    pipeline(
        image=Image.fromarray(clip.frames[0]),
        height=32,
        width=32,
        num_frames=2,
        num_inference_steps=1,
        max_guidance_scale=1.0,
        fps=8,
        motion_bucket_id=63,
        noise_aug_strength=0.5,
        generator=torch.Generator().manual_seed(clip.seed),
        output_type="latent",
    )
    handle.remove()
    return seen


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_cached_conditions_are_the_pipelines_own(dtype: torch.dtype, tmp_path: Path) -> None:
    pipeline = svd_pipeline().to(dtype)
    encode_to_cache(pipeline, CLIPS, tmp_path, SETTINGS, identity="tiny", clips_per_shard=2)
    batch = LatentCache.open(tmp_path).batch(torch.arange(3))
    assert {value.dtype for value in batch.values()} == {torch.float32}
    for position in range(3):
        for name, own in pipelines_own(pipeline, CLIPS.clip(position)).items():
            torch.testing.assert_close(batch[name][position].to(dtype), own)


@torch.no_grad()
def test_cached_latents_are_the_scaled_means_of_every_frame(tmp_path: Path) -> None:
    pipeline = svd_pipeline()
    cache = encode_to_cache(pipeline, CLIPS, tmp_path, SETTINGS, identity="tiny")
    for position, latents in enumerate(cache.batch(torch.arange(3))["latents"]):
        frames = pipeline.video_processor.preprocess([Image.fromarray(frame) for frame in CLIPS.clip(position).frames])
        torch.testing.assert_close(latents, pipeline.vae.encode(frames).latent_dist.mode() * 0.18215)


def test_a_clips_tensors_do_not_depend_on_its_place(tmp_path: Path) -> None:
    pipeline = svd_pipeline()
    forward, backward = (
        encode_to_cache(pipeline, clips, tmp_path / type(clips).__name__, SETTINGS, identity="tiny", clips_per_shard=2)
        for clips in (CLIPS, Reversed(CLIPS))
    )
    assert backward.names == forward.names[::-1]
    one, other = forward.batch(torch.arange(3)), backward.batch(torch.arange(3))
    assert all(torch.equal(one[name], other[name].flip(0)) for name in one)
    still = replace(SETTINGS, noise_strength=0.0)
    unnoised = encode_to_cache(pipeline, CLIPS, tmp_path / "still", still, identity="tiny").batch(torch.arange(3))
    assert {name for name in one if not torch.equal(one[name], unnoised[name])} == {"condition", "time_ids"}
