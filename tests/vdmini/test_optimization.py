"""`optimize` changes no more than it says, and takes everything back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from tiny_clips import same, svd_pipeline, svd_unet, weights
from tiny_others import ltx_vae
from tiny_transformers import TINY, real_inputs
from tiny_unets import animatediff_pipeline, animatediff_unet, videocrafter_pipeline
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode

import vdmini
from vdmini.attention_kernels import fastest_first, preferring
from vdmini.blocks import ModelInput
from vdmini.errors import ModelLoadError
from vdmini.models.registry import family_of, pipeline_denoiser
from vdmini.optimization import TOLERANCES, arrange
from vdmini.sample import sample_clips

# Mochi asks for autocast to float32, which CPUs have no use for.
pytestmark = pytest.mark.filterwarnings("ignore:In CPU autocast, but the target dtype is not supported:UserWarning")


def inputs_of(denoiser: nn.Module) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(3)
    size = ModelInput(batch=2, frames=2, height=8, width=8)
    values = {}
    for name, shape in family_of(denoiser).example_inputs(denoiser, size).items():
        values[name] = torch.randn(shape.shape, generator=generator).to(next(denoiser.parameters()).dtype)
    values["timestep"] = torch.tensor([300.0, 700.0])
    return values


class CountedReads(TorchDispatchMode):
    """Counts the values of tensors that Python asks for while it is active."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> object:
        self.count += func in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.is_nonzero.default)
        return func(*args, **(kwargs or {}))


def unet_pipelines() -> dict[str, Callable[[], Any]]:
    return {
        "svd": lambda: svd_pipeline(svd_unet(stages=3)),
        "videocrafter2": lambda: videocrafter_pipeline("ddim"),
        "animatediff": lambda: animatediff_pipeline(animatediff_unet()),
    }


@torch.no_grad()
def run(denoiser: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
    output: Tensor = denoiser(**inputs).sample
    return output.clone()


def assert_within(found: Tensor, expected: Tensor, tolerance: float) -> None:
    assert expected.abs().max() > 1e-3
    assert (found - expected).abs().max() <= tolerance * expected.abs().max()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("family", [*unet_pipelines()])
def test_a_unets_output_stays_within_the_tolerance_and_undo_restores_it(family: str, dtype: torch.dtype) -> None:
    pipeline = unet_pipelines()[family]()
    denoiser = pipeline_denoiser(pipeline).to(dtype)
    inputs, before = inputs_of(denoiser), weights(denoiser)
    expected = run(denoiser, inputs)
    done = vdmini.optimize(pipeline)
    assert "fused projections" in str(done)
    assert done.tolerance == TOLERANCES[dtype]
    assert_within(run(denoiser, inputs).double(), expected.double(), done.tolerance)
    done.undo()
    assert same(weights(denoiser), before)
    assert torch.equal(run(denoiser, inputs), expected)


def test_fused_weights_are_in_memory_once() -> None:
    unet = svd_unet()
    vdmini.optimize(unet)
    attention: Any = unet.down_blocks[0].attentions[0].transformer_blocks[0].attn1
    fused = attention.to_qkv.weight
    for part in (attention.to_q, attention.to_k, attention.to_v):
        assert part.weight.untyped_storage().data_ptr() == fused.untyped_storage().data_ptr()
    assert torch.equal(torch.cat([attention.to_q.weight, attention.to_k.weight, attention.to_v.weight]), fused)


def test_optimizing_twice_changes_nothing_more() -> None:
    unet = svd_unet()
    first = vdmini.optimize(unet)
    second = vdmini.optimize(unet)
    assert "fused" not in str(second)
    second.undo()
    first.undo()
    assert not hasattr(unet.down_blocks[0].attentions[0].transformer_blocks[0].attn1, "to_qkv")


@pytest.mark.parametrize("lengths", [(5, 5), (5, 9)])
def test_hunyuanvideo_without_padding_draws_the_same(lengths: tuple[int, int]) -> None:
    tiny = TINY["hunyuanvideo"]
    denoiser = tiny.build_denoiser()
    inputs = real_inputs(tiny, denoiser)
    mask = torch.zeros_like(inputs["encoder_attention_mask"])
    for clip, length in enumerate(lengths):
        mask[clip, :length] = True
    inputs["encoder_attention_mask"] = mask
    expected = run(denoiser, inputs)
    seen: list[int] = []
    denoiser.context_embedder.register_forward_pre_hook(lambda _, given: seen.append(given[0].shape[1]))
    done = vdmini.optimize(denoiser)
    assert_within(run(denoiser, inputs), expected, done.tolerance)
    # Texts of two lengths keep their padding, and their masks.
    assert seen == [5 if lengths == (5, 5) else mask.shape[1]]
    done.undo()
    assert torch.equal(run(denoiser, inputs), expected)


def test_the_length_of_a_text_is_read_once_a_clip_and_again_when_its_mask_changes() -> None:
    tiny = TINY["hunyuanvideo"]
    denoiser = tiny.build_denoiser()
    inputs = real_inputs(tiny, denoiser)
    mask = torch.zeros_like(inputs["encoder_attention_mask"])
    mask[:, :5] = True
    inputs["encoder_attention_mask"] = mask
    vdmini.optimize(denoiser)
    seen: list[int] = []
    denoiser.context_embedder.register_forward_pre_hook(lambda _, given: seen.append(given[0].shape[1]))
    with CountedReads() as first:
        run(denoiser, inputs)
    with CountedReads() as second:
        run(denoiser, inputs)
    assert first.count > 0
    assert second.count == 0, "a value that is read makes a GPU's queue run empty"
    mask[:, :7] = True
    run(denoiser, inputs)
    assert seen == [5, 5, 7]


@pytest.mark.parametrize("name", ["wan", "cogvideox-2b", "ltx", "mochi"])
def test_other_transformers_stay_within_the_tolerance(name: str) -> None:
    tiny = TINY[name]
    denoiser = tiny.build_denoiser()
    inputs = real_inputs(tiny, denoiser)
    expected = run(denoiser, inputs)
    done = vdmini.optimize(denoiser)
    assert_within(run(denoiser, inputs), expected, done.tolerance)
    done.undo()
    assert torch.equal(run(denoiser, inputs), expected)


def test_frames_decoded_one_at_a_time_are_the_same_pixels() -> None:
    pipeline: Any = videocrafter_pipeline("ddim")
    latents = torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        together = pipeline.vae.decode(latents).sample
        done = vdmini.optimize(pipeline)
        apart = pipeline.vae.decode(latents).sample
    assert "at a time" in str(done)
    assert_within(apart, together, done.tolerance)
    done.undo()
    assert not pipeline.vae.use_slicing


@pytest.mark.parametrize("name", ["easyanimate", "ltx"])
def test_a_vae_that_cannot_take_clips_apart_decodes_them_together(name: str) -> None:
    pipeline: Any = TINY[name].build_pipeline(TINY[name].build_denoiser())
    if name == "ltx":
        # Version 0.9.1's, which makes clips together around a VAE that is told a timestep.
        pipeline.vae = ltx_vae()
    expected = np.stack([*sample_clips(pipeline, TINY[name].requests, TINY[name].settings)])
    assert "at a time" not in str(vdmini.optimize(pipeline))
    clips = np.stack([*sample_clips(pipeline, TINY[name].requests, TINY[name].settings)])
    assert np.abs(clips.astype(int) - expected).max() <= 1


def test_attention_kernels_come_by_the_time_they_take(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = {SDPBackend.CUDNN_ATTENTION: 3.0, SDPBackend.EFFICIENT_ATTENTION: 2.0}

    def take(backend: SDPBackend, query: Tensor) -> float:
        if backend not in seconds:
            raise RuntimeError("No available kernel. Aborting execution.")
        return seconds[backend]

    monkeypatch.setattr("vdmini.attention_kernels._seconds", take)
    order = fastest_first(torch.device("cpu"), torch.float32, 16, tokens=8)
    assert order == (SDPBackend.EFFICIENT_ATTENTION, SDPBackend.CUDNN_ATTENTION)


def test_kernels_that_are_not_there_are_left_out() -> None:
    # Of the fused kernels, CPUs have flash attention alone.
    assert fastest_first(torch.device("cpu"), torch.float32, 16, tokens=64) == (SDPBackend.FLASH_ATTENTION,)


def test_attention_is_tried_in_the_order_that_is_preferred_inside_a_pass_alone() -> None:
    seen: list[list[int]] = []

    def forward(value: int) -> int:
        seen.append(torch._C._get_sdp_priority_order())
        seen.append([int(torch.backends.cuda.flash_sdp_enabled()), int(torch.backends.cuda.cudnn_sdp_enabled())])
        return value + 1

    before = torch._C._get_sdp_priority_order()
    order = (SDPBackend.EFFICIENT_ATTENTION, SDPBackend.FLASH_ATTENTION)
    assert preferring(order, forward)(1) == 2
    assert torch._C._get_sdp_priority_order() == before
    expected = [int(backend.value) for backend in (*order, SDPBackend.CUDNN_ATTENTION, SDPBackend.MATH)]
    assert seen[0][:4] == expected
    assert seen[1] == [1, 1]
    # What a caller has chosen still holds.
    with sdpa_kernel([SDPBackend.FLASH_ATTENTION, SDPBackend.MATH]):
        preferring(order, forward)(1)
    assert seen[3] == [1, 0]


def test_weights_are_laid_out_anew_where_convolutions_over_time_are_among_them() -> None:
    pipeline = svd_pipeline(svd_unet(stages=3))
    unet = pipeline_denoiser(pipeline)
    inputs, before = inputs_of(unet), weights(unet)
    expected = run(unet, inputs)
    for part in (unet, pipeline.vae):
        arrange(part, torch.channels_last)
        flat = [weight for weight in part.parameters() if weight.dim() == 4 and weight.shape[1] > 1]
        assert flat
        assert all(weight.is_contiguous(memory_format=torch.channels_last) for weight in flat)
        assert any(weight.dim() == 5 for weight in part.parameters())
    assert_within(run(unet, inputs), expected, TOLERANCES[torch.float32])
    arrange(unet, torch.contiguous_format)
    assert same(weights(unet), before)
    assert torch.equal(run(unet, inputs), expected)


def test_compiling_is_asked_for_and_taken_back(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[object] = []
    monkeypatch.setattr(torch, "compile", lambda function: compiled.append(function) or function)
    unet = svd_unet()
    assert "compiled" not in str(vdmini.optimize(unet))
    done = vdmini.optimize(unet, compiled=True)
    assert len(compiled) == 1
    done.undo()
    assert "forward" not in vars(unet)


def test_what_is_no_video_model_is_refused() -> None:
    with pytest.raises(ModelLoadError, match="no family knows Linear"):
        vdmini.optimize(nn.Linear(2, 2))
