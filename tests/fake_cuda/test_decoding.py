"""Every family's VAE makes pixels of latents on a card: whole, a clip at a time, and in tiles."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pretended import Card, moved, on_card
from test_fake_cuda_distillation import SVD
from tiny_clips import TEXT_MODELS
from tiny_transformers import TINY
from torch._subclasses.fake_tensor import FakeTensorMode, unset_fake_temporarily

from vdmini.models.registry import VideoModel, family_of, pipeline_denoiser
from vdmini.optimization import slices
from vdmini_bench.speed.scopes import ClipSize, Decoding, decode_latents

UNETS = {"svd": SVD[0]} | {name: TEXT_MODELS[name][0] for name in ("videocrafter2", "animatediff")}


def build(name: str) -> VideoModel:
    """The tiny teacher of that name."""
    pipeline: Any = UNETS[name]() if name in UNETS else TINY[name].build_pipeline(TINY[name].build_denoiser())
    denoiser = pipeline_denoiser(pipeline)
    return VideoModel(name, family_of(denoiser).name, denoiser, pipeline.vae, pipeline)


@pytest.mark.parametrize("name", [*UNETS, *TINY])
def test_clips_are_decoded_on_the_card(name: str, fakes: FakeTensorMode) -> None:
    with unset_fake_temporarily():
        model = build(name)
        # Wider than the tiles of most.
        size = ClipSize(2 if name in UNETS else TINY[name].frames, 128, 288, 1)
        latents = decode_latents(model, size)
    ways = ["whole"] + ["slicing"] * slices(model.vae) + ["tiling"] * hasattr(model.vae, "use_tiling")
    # Allegro's makes nothing but tiles.
    for way in ["tiling"] if name == "allegro" else ways:
        vae: Any = on_card(model.vae, torch.bfloat16)
        if way != "whole":
            getattr(vae, f"enable_{way}")()
        clips = latents.repeat(2 if way == "slicing" else 1, *[1] * (latents.ndim - 1))
        with Card() as card:
            pixels = Decoding(vae, size.frames)(moved(clips, torch.bfloat16))
        assert (pixels.device.type, pixels.dtype, card.waits) == ("cuda", torch.bfloat16, 0)
        assert (len(pixels), *pixels.shape[-2:]) == (len(clips), 128, 288)
