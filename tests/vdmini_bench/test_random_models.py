"""Published models with random weights: the right sizes, usable values, and no hub."""

from __future__ import annotations

import socket
from typing import Any

import pytest
import torch
from torch import nn

from vdmini.blocks import ModelInput
from vdmini.cost import count_parameters
from vdmini.models.loading import load_model
from vdmini.models.registry import block_graph, family_of
from vdmini.rules import make_plan
from vdmini_bench.errors import SuiteError
from vdmini_bench.models.random_models import build_random, materialise
from vdmini_bench.models.random_pipelines import PIPELINES, build_pipeline

CPU = torch.device("cpu")


class Parts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(64, 256)
        self.second = nn.Linear(64, 256)
        self.second.weight = self.first.weight
        self.norm = nn.GroupNorm(4, 64)
        self.register_buffer("places", torch.arange(7))


def meta(seed: int = 0, dtype: torch.dtype = torch.float32) -> Parts:
    with torch.device("meta"):
        parts = Parts()
    materialise(parts, device=CPU, dtype=dtype, seed=seed)
    return parts


def test_values_keep_activations_in_range_and_follow_from_the_seed() -> None:
    parts = meta()
    hidden = parts.first(torch.randn(500, 64, generator=torch.Generator().manual_seed(1)))
    assert 0.8 < float(hidden.std()) < 1.2
    assert torch.equal(parts.norm.weight, torch.ones(64))
    assert not parts.first.bias.any()
    assert torch.equal(meta().first.weight, parts.first.weight)
    assert not torch.equal(meta(seed=1).first.weight, parts.first.weight)


def test_weights_come_in_the_dtype_and_shared_ones_stay_shared() -> None:
    parts = meta(dtype=torch.bfloat16)
    assert parts.first.weight.dtype == torch.bfloat16
    assert parts.first.weight is parts.second.weight
    assert parts.places.dtype == torch.int64
    assert not any(weight.is_meta for weight in (*parts.parameters(), *parts.buffers()))


@pytest.mark.parametrize(("name", "width", "plan"), [("svd", 64, "vdmini"), ("t2v-turbo-v2", 64, "vdmini")])
def test_a_narrow_model_has_the_blocks_of_the_published_one(
    name: str, width: int, plan: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a model with random weights asked the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    narrow = build_random(name, device=CPU, dtype=torch.float32, width=width)
    published = load_model(name, random_weights=True, device="meta")
    family = family_of(narrow.denoiser)
    assert [*family.block_modules(narrow.denoiser)] == [*family.block_modules(published.denoiser)]
    assert make_plan(narrow, plan).removed == make_plan(published, plan).removed
    assert next(narrow.denoiser.parameters()).numel() < next(published.denoiser.parameters()).numel()
    assert narrow.pipeline is not None


@pytest.mark.parametrize(("name", "width"), [("animatediff", 64), ("hunyuanvideo", 256), ("wan2.1-t2v-1.3b", 256)])
def test_the_settings_of_another_width_give_that_width(name: str, width: int) -> None:
    published: Any = load_model(name, random_weights=True, device="meta").denoiser
    family = family_of(published)
    # Without diffusers' own notes, one of which makes it forget settings that had been defaults.
    settings = {name: value for name, value in published.config.items() if not name.startswith("_")}
    with torch.device("meta"):
        narrow = type(published)(**{**settings, **family.narrowed(published, width)})
    assert family.width(narrow) == width < family.width(published)
    assert block_graph(narrow, ModelInput(1, 2, 8, 8)).params < count_parameters(published)


def test_encoders_have_their_published_sizes() -> None:
    millions = {}
    for name, encoder in (("svd", "image_encoder"), ("t2v-turbo-v2", "text_encoder"), ("hunyuanvideo", "text_encoder")):
        published = load_model(name, random_weights=True, device="meta")
        assert published.vae is not None
        pipeline = build_pipeline(name, published.denoiser, published.vae, share=1.0)
        millions[name] = sum(weight.numel() for weight in getattr(pipeline, encoder).parameters()) / 1e6
    # OpenCLIP ViT-H/14's towers, 632.08 M and (23 of 24 layers) 340.39 M; Llama 3 8B without its output layer.
    assert millions["svd"] == pytest.approx(632.08, abs=0.01)
    assert millions["t2v-turbo-v2"] == pytest.approx(340.4, abs=0.1)
    assert millions["hunyuanvideo"] == pytest.approx(7505, abs=5)
    assert {"svd", "t2v-turbo-v2", "hunyuanvideo"} <= {*PIPELINES}


@pytest.mark.parametrize(
    ("name", "width", "said"),
    [("svdd", None, "did you mean 'svd'"), ("svd", 100, "multiple of 64"), ("ltx", 64, "leave the width out")],
)
def test_what_cannot_be_built_is_refused(name: str, width: int | None, said: str) -> None:
    with pytest.raises(SuiteError, match=said):
        build_random(name, device=CPU, dtype=torch.float32, width=width)
