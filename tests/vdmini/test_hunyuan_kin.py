"""What HunyuanVideo's kin, Motif-Video and Kandinsky 5 have that other families do not."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline, MotifVideoImage2VideoPipeline
from PIL import Image
from tiny_transformers import TINY, real_inputs
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from vdmini.cost import count_flops
from vdmini.models.loading import load_model
from vdmini.models.registry import block_graph, family_of
from vdmini.sample import sample_video


def pipeline_of(name: str) -> DiffusionPipeline:
    """A tiny pipeline, its guider among its components where it has one."""
    return TINY[name].build_pipeline(TINY[name].build_denoiser())


def direct(name: str, **changed: Any) -> np.ndarray:
    """The first clip of a tiny pipeline as diffusers makes it when called with these arguments."""
    tiny, request = TINY[name], TINY[name].requests[0]
    arguments = {
        "prompt": request.prompt, "num_frames": tiny.frames, "height": tiny.height, "width": tiny.width,
        "num_inference_steps": tiny.settings.steps, "generator": request.generator(), "output_type": "np",
    }  # fmt: skip
    images = {} if request.image is None else {"image": Image.fromarray(request.image)}
    return np.asarray(pipeline_of(name)(**arguments | images | changed).frames)


@pytest.mark.parametrize("name", ["hunyuanvideo-1.5-t2v", "motif-video-t2v"])
def test_guidance_reaches_a_guider_which_is_put_back(name: str) -> None:
    tiny, pipeline = TINY[name], pipeline_of(name)
    own = pipeline.guider
    asked = dataclasses.replace(tiny.settings, guidance=2.0, negative_prompt="red dog")
    found = sample_video(pipeline, tiny.requests[:1], asked)
    assert pipeline.guider is own
    assert own.guidance_scale == 6.0
    by_hand = pipeline_of(name)
    by_hand.guider = own.new(guidance_scale=2.0)
    request = tiny.requests[0]
    expected = by_hand(
        prompt=request.prompt, negative_prompt="red dog", num_frames=tiny.frames, height=tiny.height, width=tiny.width,
        num_inference_steps=2, generator=request.generator(), output_type="np",
    ).frames  # fmt: skip
    assert np.array_equal(found, expected)


@pytest.mark.parametrize("name", ["hunyuanvideo-i2v-33ch", "skyreels-v1-i2v", "framepack"])
def test_a_negative_prompt_guides_by_a_second_pass(name: str) -> None:
    tiny, pipeline, rows = TINY[name], pipeline_of(name), []
    asked = dataclasses.replace(tiny.settings, negative_prompt="red dog", second_guidance=2.0)
    with pipeline.transformer.register_forward_hook(lambda *each: rows.append(len(each[-1][0]))):
        found = sample_video(pipeline, tiny.requests[:1], asked)
    assert rows == [1] * 2 * asked.steps
    assert family_of(pipeline.transformer).passes_per_step(pipeline.transformer, asked) == 2
    expected = direct(name, **{"negative_prompt": "red dog", "true_cfg_scale": 2.0, **tiny.arguments})
    assert np.array_equal(found, expected)


def test_framepack_makes_a_clip_of_several_sections() -> None:
    tiny, pipeline, passes = TINY["framepack"], pipeline_of("framepack"), []
    asked = dataclasses.replace(tiny.settings, frames=73)
    with pipeline.transformer.register_forward_hook(lambda *_: passes.append(1)):
        found = sample_video(pipeline, tiny.requests[:1], asked)
    assert found.shape[1] == 73
    assert len(passes) == 2 * asked.steps
    assert family_of(pipeline.transformer).passes_per_step(pipeline.transformer, asked) == 2
    assert np.array_equal(found, direct("framepack", num_frames=66))
    with pytest.raises(ValueError, match="not 1 frame: ask for 37 frames"):
        sample_video(pipeline, tiny.requests[:1], dataclasses.replace(asked, frames=1))


def test_motif_video_animates_an_image_with_the_pipeline_for_it() -> None:
    tiny = TINY["motif-video-i2v"]
    words = pipeline_of("motif-video-t2v")
    found = sample_video(words, tiny.requests[:1], tiny.settings)
    assert not isinstance(words, MotifVideoImage2VideoPipeline)
    assert np.array_equal(found, direct("motif-video-i2v"))


def test_an_image_of_other_proportions_than_the_clip_is_refused() -> None:
    tiny, pipeline = TINY["hunyuanvideo-1.5-i2v"], pipeline_of("hunyuanvideo-1.5-i2v")
    square = dataclasses.replace(tiny.requests[0], image=np.zeros((16, 16, 3), np.uint8))
    with pytest.raises(ValueError, match=r"clip 'one' has an image of 16x16 pixels, .* than 16x32: crop it"):
        sample_video(pipeline, [square], tiny.settings)
    with pytest.raises(ValueError, match="clip 'one' has no image"):
        sample_video(pipeline, [dataclasses.replace(square, image=None)], tiny.settings)
    words = pipeline_of("hunyuanvideo-1.5-t2v")
    with pytest.raises(ValueError, match="clip 'one' has an image, which this model does not take"):
        sample_video(words, [square], tiny.settings)


def test_kandinsky5_refuses_clips_of_an_image_that_its_pipeline_spoils() -> None:
    tiny, pipeline = TINY["kandinsky5-i2v"], pipeline_of("kandinsky5-i2v")
    with pytest.raises(ValueError, match="makes 17 frames or more of an image, not 5"):
        sample_video(pipeline, tiny.requests[:1], dataclasses.replace(tiny.settings, frames=5))


@pytest.mark.parametrize("name", ["hunyuanvideo-1.5-i2v", "framepack"])
def test_flops_are_those_of_a_pass_whose_texts_fill_their_masks(name: str) -> None:
    denoiser = TINY[name].build_denoiser()
    inputs = real_inputs(TINY[name], denoiser)
    for key, value in inputs.items():
        if "mask" in key:
            value.fill_(True)
        # FramePack cuts the text of one clip alone.
        if "indices" not in key:
            inputs[key] = value[:1]
    with FlopCounterMode(display=False) as counter, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        denoiser(**inputs)
    assert count_flops(denoiser, inputs) == counter.get_total_flops()


def test_a_decoder_block_reads_the_clip_anew() -> None:
    teacher = TINY["motif-video-t2v"].build_denoiser()
    graph = block_graph(teacher)
    assert [len(graph.stage(stage)) for stage in ("Dual", "Single", "Decoder")] == [4, 4, 3]
    assert family_of(teacher).blocks(teacher)["Decoder.0"] is teacher.single_transformer_blocks[4]


@pytest.mark.parametrize("name", ["hunyuanvideo-1.5-i2v", "framepack", "motif-video-i2v", "kandinsky5-i2v"])
def test_a_saved_pipeline_is_loaded_here_and_makes_the_same_clips(name: str, tmp_path: Path) -> None:
    tiny, pipeline = TINY[name], pipeline_of(name)
    pipeline.save_pretrained(tmp_path)
    loaded = load_model(tmp_path)
    assert (loaded.family, type(loaded.pipeline)) == (tiny.family, type(pipeline))
    one, other = (sample_video(each, tiny.requests[:1], tiny.settings) for each in (pipeline, loaded.pipeline))
    assert np.abs(one - other).max() < 1e-4
    weightless = load_model(tmp_path, device="meta")
    assert weightless.blocks.params == loaded.blocks.params
