"""What Wan's kin have beside their stacks keeps its place, and their pipelines get what is theirs."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import WanAnimatePipeline, WanImageToVideoPipeline
from PIL import Image
from test_transformers import plan_for
from tiny_transformers import TINY

from vdmini.cost import count_parameters
from vdmini.errors import PlanError
from vdmini.models.loading import load_model
from vdmini.models.registry import block_graph, family_of
from vdmini.prune import apply_plan
from vdmini.requests import ClipRequest
from vdmini.rules import make_plan
from vdmini.sample import sample_clips, sample_video, to_pixels

pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
)


@pytest.mark.parametrize(
    ("removed", "layers"),
    [
        (("Block.1",), [0, 1, 2, 4]),
        (("Block.2",), [0, 2, 4]),
        (("Block.4",), [0, 2, 3, 4]),
        (("Block.1", "Block.3", "Block.5"), [0, 1]),
        (("Block.2", "Block.3", "Block.4", "Block.5"), [0]),
    ],
)
def test_vace_layers_follow_their_blocks(removed: tuple[str, ...], layers: list[int]) -> None:
    teacher = TINY["wan-vace"].build_denoiser()
    assert teacher.config.vace_layers == [0, 2, 3, 5]
    # Proved equal to the teacher with blocks and hints bypassed.
    student = apply_plan(teacher, plan_for(teacher, removed))
    assert student.config.vace_layers == layers
    assert len(student.vace_blocks) == len(layers)
    assert block_graph(teacher).blocks[1].name == "first_block"


def test_a_vace_block_is_counted_with_the_block_it_hints() -> None:
    teacher = TINY["wan-vace"].build_denoiser()
    sizes = {block.name: block.params for block in block_graph(teacher).blocks}
    hinting = [count_parameters(block) for block in teacher.vace_blocks]
    assert sizes["Block.2"] - sizes["Block.1"] == hinting[1]
    assert sizes["first_block"] - sizes["Block.1"] == hinting[0] > hinting[1]


def test_blocks_of_animate_leave_with_their_face_adapter() -> None:
    teacher = TINY["wan-animate"].build_denoiser()
    graph = block_graph(teacher)
    assert [unit.name for unit in graph.units] == ["Block.0+Block.1", "Block.2+Block.3", "Block.4+Block.5"]
    student = apply_plan(teacher, plan_for(teacher, ("Block.0", "Block.1")))
    assert torch.equal(student.face_adapter[0].to_q.weight, teacher.face_adapter[1].to_q.weight)
    for part in (("Block.1",), ("Block.1", "Block.2"), ("Block.0", "Block.2")):
        with pytest.raises(PlanError, match="leave together: remove all of them or none"):
            apply_plan(teacher, plan_for(teacher, part))


def test_rules_remove_whole_groups_of_animate() -> None:
    animate = load_model("wan2.2-animate-14b", random_weights=True, device="meta")
    student = apply_plan(animate.denoiser, make_plan(animate, "uniform:flops=0.75"))
    assert (len(student.blocks), len(student.face_adapter)) == (30, 6)


def test_animates_student_is_sampled_by_its_own_pipeline_alone(tmp_path: Path) -> None:
    tiny = TINY["wan-animate"]
    teacher = tiny.build_denoiser()
    pipeline = tiny.build_pipeline(apply_plan(teacher, plan_for(teacher, tiny.removed)))
    with pytest.raises(ValueError, match="call the pipeline itself, with pose_video and face_video"):
        sample_clips(pipeline, tiny.requests, tiny.settings)
    pipeline.save_pretrained(tmp_path)
    loaded = load_model(str(tmp_path))
    assert type(loaded.pipeline) is WanAnimatePipeline
    assert loaded.family == "wan-animate"
    image = Image.fromarray(tiny.picture(3))
    videos: dict[str, Any] = {"pose_video": [image] * 5, "face_video": [image.resize((16, 16))] * 5}
    sizes = {"height": 16, "width": 32, "segment_frame_length": 5, "num_inference_steps": 2}
    one, other = (
        each(image=image, prompt="a cat", **videos, **sizes, generator=torch.Generator().manual_seed(1)).frames
        for each in (pipeline, loaded.pipeline)
    )
    # A batch of one clip rounds by where its weights lie in memory.
    assert np.abs(one - other).max() < 1e-5
    assert one.std() > 0.01


def test_the_5b_model_takes_an_image_or_none() -> None:
    tiny, asked = TINY["wan2.2-ti2v"], TINY["wan2.2-ti2v-image"].requests
    pipeline = tiny.build_pipeline(tiny.build_denoiser())
    with_image = sample_video(pipeline, asked, tiny.settings)
    without = sample_video(pipeline, [dataclasses.replace(each, image=None) for each in asked], tiny.settings)
    assert np.abs(with_image - without).max() > 1e-3
    direct = WanImageToVideoPipeline(**pipeline.components, expand_timesteps=True)
    expected = direct(
        prompt="a cat runs", image=asked[0].picture(), num_frames=tiny.frames, height=tiny.height, width=tiny.width,
        num_inference_steps=2, generator=asked[0].generator(),
    ).frames  # fmt: skip
    assert np.array_equal(with_image[:1], expected)


def test_the_5b_model_has_the_vae_of_wan22() -> None:
    vae = load_model("wan2.2-ti2v-5b", random_weights=True, device="meta").vae
    # Of the model that diffusers' script converts Wan2.2_VAE.pth to.
    assert count_parameters(vae) == 704_688_668
    assert sum(vae.config.latents_mean) == pytest.approx(-0.5589)
    assert sum(vae.config.latents_std) == pytest.approx(32.536)


def test_wan_from_text_takes_no_image_and_wan_from_an_image_needs_one() -> None:
    for name, image, said in (
        ("wan", TINY["wan2.1-i2v"].picture(3), "has an image, which this model does not take"),
        ("wan2.1-i2v", None, "has no image, which this model animates"),
        ("wan-vace", TINY["wan2.1-i2v"].picture(3), "has an image, which this model does not take"),
    ):
        pipeline = TINY[name].build_pipeline(TINY[name].build_denoiser())
        with pytest.raises(ValueError, match=said):
            sample_clips(pipeline, [ClipRequest("one", 0, image, "a cat")], TINY[name].settings)


def test_the_image_and_its_clip_embedding_decide_the_clip() -> None:
    tiny = TINY["wan2.1-i2v"]
    pipeline = tiny.build_pipeline(tiny.build_denoiser())
    first = tiny.requests[0]
    one = sample_video(pipeline, [first], tiny.settings)
    other = sample_video(pipeline, [dataclasses.replace(first, image=tiny.picture(9))], tiny.settings)
    assert np.abs(one - other).max() > 1e-4
    torch.nn.init.zeros_(pipeline.transformer.blocks[0].attn2.add_v_proj.weight)
    assert np.abs(sample_video(pipeline, [first], tiny.settings) - one).max() > 1e-6


def test_a_negative_prompt_reaches_a_pipeline_that_takes_no_lists() -> None:
    tiny = TINY["wan-vace"]
    pipeline = tiny.build_pipeline(tiny.build_denoiser())
    settings = dataclasses.replace(tiny.settings, negative_prompt="red dog", guidance=4.0)
    found = sample_clips(pipeline, tiny.requests[:1], settings)
    expected = pipeline(
        prompt="a cat runs", negative_prompt="red dog", guidance_scale=4.0, num_frames=tiny.frames, height=tiny.height,
        width=tiny.width, num_inference_steps=2, generator=tiny.requests[0].generator(),
    ).frames  # fmt: skip
    assert np.array_equal(found, to_pixels(expected))


def test_a_narrower_wan_from_an_image_fits_together() -> None:
    teacher = TINY["wan2.1-i2v"].build_denoiser()
    changed = family_of(teacher).narrowed(teacher, 12)
    student = type(teacher)(**{**family_of(teacher).architecture(teacher), **changed})
    assert family_of(student).width(student) == 12
    assert block_graph(student).flops < block_graph(teacher).flops
