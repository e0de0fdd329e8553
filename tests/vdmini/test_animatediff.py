"""AnimateDiff: its student equals the teacher with the removed blocks cut out, survives saving, and samples."""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

import forked
import numpy as np
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    EulerAncestralDiscreteScheduler,
    MotionAdapter,
    UNet2DConditionModel,
    UNetMotionModel,
)
from tiny_unets import ANIMATEDIFF, animatediff_pipeline, animatediff_unet
from torch import Tensor, nn

import vdmini
from vdmini import FeatureTap, PlanError, apply_plan, feature_pairs, load_model, make_plan, save_student
from vdmini.cost import count_parameters
from vdmini.models import animatediff
from vdmini.models.registry import VideoModel, block_graph
from vdmini.plan import PruningPlan, architecture_sha256
from vdmini.requests import ClipRequest, SampleSettings
from vdmini.rules import plan_removing
from vdmini.sample import sample_clips

# Every setting that may differ from stage to stage or from pair to pair does; those that reach Mid agree where a stage
# can be dropped.
UNEVEN: dict[str, Any] = {
    **ANIMATEDIFF,
    "num_attention_heads": (1, 4, 4, 4),
    "motion_num_attention_heads": (4, 2, 2, 2),
    "transformer_layers_per_block": ((1, 2), (2, 1), (1, 2), 1),
    "reverse_transformer_layers_per_block": (1, (1, 2, 1), (2, 1, 3), (1, 3, 2)),
    "temporal_transformer_layers_per_block": ((2, 1), (1, 2), (2, 1), (1, 2)),
    "reverse_temporal_transformer_layers_per_block": ((1, 2, 1), (2, 1, 1), (1, 3, 2), (3, 1, 2)),
}
CONFIGS = {"uneven": UNEVEN, "no motion in Mid": {**ANIMATEDIFF, "use_motion_mid_block": False}}


@pytest.fixture(scope="module")
def plan() -> PruningPlan:
    """What the rule 'vdmini' keeps of the tiny teacher."""
    return make_plan(animatediff_unet())


def unet_inputs(height: int = 8, width: int = 8) -> dict[str, Tensor]:
    """Two clips of four latents with a context of seven tokens for each frame."""
    generator = torch.Generator().manual_seed(1)
    return {
        "sample": torch.randn(2, 4, 4, height, width, generator=generator),
        "timestep": torch.tensor([10, 500]),
        "encoder_hidden_states": torch.randn(8, 7, 32, generator=generator),
    }


def cut_in_place(teacher: UNetMotionModel, removed: Collection[str]) -> UNetMotionModel:
    """A copy of the teacher whose removed blocks were taken out of its lists of layers, the rest left as it was."""
    net = copy.deepcopy(teacher)
    for side, stages in (("D", net.down_blocks), ("U", net.up_blocks)):
        for index, stage in enumerate(stages):
            for pair in reversed(range(len(stage.resnets))):
                if f"{side}.{index}.{pair}" in removed:
                    del stage.resnets[pair], stage.motion_modules[pair]
                    if hasattr(stage, "attentions"):
                        del stage.attentions[pair]
            if f"{side}.{index}.downsample" in removed:
                stage.downsamplers = None
            if f"{side}.{index}.upsample" in removed:
                stage.upsamplers = None
    net.down_blocks = nn.ModuleList(stage for stage in net.down_blocks if len(stage.resnets))
    net.up_blocks = nn.ModuleList(stage for stage in net.up_blocks if len(stage.resnets))
    net.num_upsamplers = len(net.up_blocks) - 1
    if "Mid" in removed:
        net.mid_block = None
    return net


@pytest.mark.parametrize(
    ("name", "millions", "ratio"), [("animatediff", 1312.73, 0.6887), ("animatediff-v3", 1276.66, 0.6915)]
)
def test_student_of_the_official_model_has_the_size_that_is_left(name: str, millions: float, ratio: float) -> None:
    model = load_model(name, random_weights=True, device="meta")
    plan = make_plan(model)
    student = block_graph(apply_plan(model.denoiser, plan))
    left = model.blocks.without(plan.removed)
    assert (student.params, student.flops) == (left.params, left.flops)
    assert round(model.blocks.params / 1e6, 2) == millions
    # Stable Diffusion 1.5's published UNet has 859,520,964 weights; the motion modules are the rest.
    motion = sum(each.numel() for key, each in model.denoiser.named_parameters() if "motion_modules" in key)
    assert model.blocks.params - motion == 859_520_964
    assert round(student.params / 1e6, 2) == 687.42
    assert round(student.flops / model.blocks.flops, 4) == ratio


@pytest.mark.parametrize(("name", "motion_in_mid"), [("animatediff", True), ("animatediff-v3", False)])
def test_official_model_is_what_stable_diffusion_and_the_adapter_make(name: str, motion_in_mid: bool) -> None:
    with torch.device("meta"):
        # The settings of SD 1.5's own config.json that are not diffusers' defaults.
        image_unet = UNet2DConditionModel(sample_size=64, cross_attention_dim=768)
        adapter = MotionAdapter(use_motion_mid_block=motion_in_mid)
        assembled = UNetMotionModel.from_unet2d(image_unet, adapter, load_weights=False)
    official = load_model(name, random_weights=True, device="meta").denoiser
    # JSON, as it identifies a teacher, has one kind of list.
    shown, expected = (json.dumps(animatediff.FAMILY.architecture(each), indent=2) for each in (assembled, official))
    assert shown == expected
    assert make_plan(name).teacher == architecture_sha256(animatediff.FAMILY.architecture(assembled))


@torch.no_grad()
@pytest.mark.parametrize("config", CONFIGS)
def test_student_equals_the_teacher_cut_in_place(config: str) -> None:
    teacher = animatediff_unet(CONFIGS[config])
    plan = make_plan(teacher)
    student = apply_plan(teacher, plan)
    cut = cut_in_place(teacher, plan.removed)
    for height, width in ((8, 8), (4, 12), (7, 9)):
        inputs = unet_inputs(height, width)
        output = student(**inputs).sample
        assert (output - cut(**inputs).sample).abs().max().item() == 0.0
        assert output.shape == inputs["sample"].shape
    assert (student(**unet_inputs()).sample - teacher(**unet_inputs()).sample).abs().max().item() > 0.0


@torch.no_grad()
def test_every_unit_leaves_a_student_equal_to_the_teacher_cut_in_place() -> None:
    teacher, inputs = animatediff_unet(UNEVEN), unet_inputs()
    model = VideoModel("tiny", "animatediff", teacher, vae=None, pipeline=None)
    graph = model.blocks
    assert [unit.name for unit in graph.units if "Mid" in unit.blocks or unit.requires] == ["Mid", "D.3+U.0", "D.2+U.1"]
    for unit in graph.units:
        removed = graph.blocks_of([unit.name])
        student = apply_plan(teacher, plan_removing(model, removed, "by hand"))
        assert torch.equal(student(**inputs).sample, cut_in_place(teacher, removed)(**inputs).sample), removed
        assert count_parameters(student) == graph.without(removed).params


@torch.no_grad()
@pytest.mark.parametrize("config", CONFIGS)
def test_removing_nothing_changes_nothing(config: str) -> None:
    teacher, inputs = animatediff_unet(CONFIGS[config]), unet_inputs()
    student = apply_plan(teacher, make_plan(teacher, rule="none"))
    assert torch.equal(student(**inputs).sample, teacher(**inputs).sample)


@pytest.mark.parametrize("heads", ["num_attention_heads", "motion_num_attention_heads"])
def test_a_middle_block_is_not_split_into_other_heads(heads: str) -> None:
    teacher = animatediff_unet({**ANIMATEDIFF, heads: (1, 2, 2, 4)})
    model = VideoModel("tiny", "animatediff", teacher, vae=None, pipeline=None)
    lowest = model.blocks.blocks_of(["D.3+U.0"])
    with pytest.raises(PlanError, match=f"Mid has the {heads} of the lowest resolution"):
        apply_plan(teacher, plan_removing(model, lowest, "by hand"))
    apply_plan(teacher, plan_removing(model, (*lowest, "Mid"), "by hand"))


@torch.no_grad()
def test_paired_features_have_the_same_shape(plan: PruningPlan) -> None:
    teacher, inputs = animatediff_unet(), unet_inputs()
    student = apply_plan(teacher, plan)
    of_student, of_teacher = zip(*feature_pairs(plan), strict=True)
    with FeatureTap(student, of_student) as student_tap, FeatureTap(teacher, of_teacher) as teacher_tap:
        student(**inputs)
        teacher(**inputs)
    assert [each.shape for each in student_tap.features] == [each.shape for each in teacher_tap.features]
    assert of_teacher == ("D.0", "D.1", "D.2.1", "U.1", "U.2", "U.3")


def test_gradient_checkpointing_gives_the_same_gradients(plan: PruningPlan) -> None:
    teacher = animatediff_unet()
    gradients = []
    for checkpointing in (False, True):
        student = apply_plan(teacher, plan).train()
        if checkpointing:
            student.enable_gradient_checkpointing()
        student(**unet_inputs()).sample.square().mean().backward()
        gradients.append({name: parameter.grad for name, parameter in student.named_parameters()})
    assert all(gradient is not None for gradient in gradients[0].values())
    assert all(torch.equal(gradient, gradients[1][name]) for name, gradient in gradients[0].items())


def test_the_unet_of_stable_diffusion_xl_is_of_no_family() -> None:
    two_stages = {
        "block_out_channels": (32, 64),
        "down_block_types": ("DownBlockMotion", "CrossAttnDownBlockMotion"),
        "up_block_types": ("CrossAttnUpBlockMotion", "UpBlockMotion"),
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 8,
        "projection_class_embeddings_input_dim": 80,
    }
    with pytest.raises(vdmini.ModelLoadError, match="no family knows UNetMotionModel"):
        block_graph(animatediff_unet({**ANIMATEDIFF, **two_stages}))


def test_an_original_file_is_refused_with_the_way_to_load_it(tmp_path: Path) -> None:
    with pytest.raises(vdmini.ModelLoadError, match="put UNet and motion adapter together"):
        animatediff.FAMILY.load_original("animatediff", tmp_path / "mm_sd_v15_v2.ckpt")


def test_an_unknown_middle_block_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown mid_block_type 'UNetMidBlock2D'"):
        animatediff.VDMiniUNetMotionModel(mid_block_type="UNetMidBlock2D")


SETTINGS = SampleSettings(steps=2, frames=3, height=32, width=64)
REQUESTS = [ClipRequest("fox", 5, prompt="a fox runs"), ClipRequest("sea", 6, prompt="waves at sea")]


def distance(one: np.ndarray, other: np.ndarray) -> int:
    """The largest difference in grey levels."""
    return int(np.abs(one.astype(int) - other.astype(int)).max())


READ = """
import sys
import numpy as np, torch
from diffusers import DiffusionPipeline
from vdmini import VDMiniUNetMotionModel, load_model
from vdmini.sample import ClipRequest, SampleSettings, sample_clips
folder, expected = sys.argv[1:]
saved = torch.load(expected, weights_only=True)
denoiser, report = VDMiniUNetMotionModel.from_pretrained(folder + "/unet", output_loading_info=True)
assert not any(report.values()), report
pipeline = DiffusionPipeline.from_pretrained(folder)
model = load_model(folder)
assert model.family == "animatediff"
for each in (denoiser, pipeline.unet, model.denoiser):
    assert type(each) is VDMiniUNetMotionModel and each.mid_block is None
    weights = each.state_dict()
    assert weights.keys() == saved["weights"].keys()
    assert all(torch.equal(weights[name], tensor) for name, tensor in saved["weights"].items())
requests = [ClipRequest("fox", 5, prompt="a fox runs"), ClipRequest("sea", 6, prompt="waves at sea")]
clips = sample_clips(pipeline, requests, SampleSettings(steps=2, frames=3, height=32, width=64))
assert np.array_equal(clips, saved["clips"].numpy())
"""


def test_another_process_reads_and_samples_the_same_student(plan: PruningPlan, tmp_path: Path) -> None:
    pipeline = animatediff_pipeline(apply_plan(animatediff_unet(), plan))
    folder = save_student(tmp_path / "student", pipeline, plan, {})
    clips = sample_clips(pipeline, REQUESTS, SETTINGS)
    expected = tmp_path / "expected.pt"
    torch.save({"weights": pipeline.unet.state_dict(), "clips": torch.from_numpy(clips)}, expected)
    done = forked.run("-c", READ, folder, expected)
    assert done.returncode == 0, done.stderr
    for complaint in ("newly initialized", "Expected types", "not expected"):
        assert complaint not in done.stderr


@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning")
@pytest.mark.parametrize("scheduler", [DDIMScheduler, EulerAncestralDiscreteScheduler])
@pytest.mark.parametrize("guidance", [1.0, None])
def test_a_clip_is_the_same_in_any_batch(scheduler: Any, guidance: float | None) -> None:
    pipeline = animatediff_pipeline(animatediff_unet())
    pipeline.scheduler = scheduler()
    settings = dataclasses.replace(SETTINGS, guidance=guidance)
    together = sample_clips(pipeline, REQUESTS, settings)
    assert together.shape == (2, 3, 32, 64, 3)
    assert len(np.unique(together)) > 20
    for request, clip in zip(REQUESTS, together, strict=True):
        # Guidance multiplies the rounding that differs between batch sizes.
        assert distance(sample_clips(pipeline, [request], settings)[0], clip) <= 1
    assert distance(together[0], together[1]) > 10


def test_request_and_settings_reach_the_pipeline() -> None:
    pipeline = animatediff_pipeline(animatediff_unet())
    request = REQUESTS[0]
    clip = sample_clips(pipeline, [request], SETTINGS)
    # 7.5 is the pipeline's own default.
    explicit = dataclasses.replace(SETTINGS, guidance=7.5)
    assert sample_clips(pipeline, [request], explicit).tobytes() == clip.tobytes()
    for settings in (dataclasses.replace(SETTINGS, steps=3), dataclasses.replace(SETTINGS, guidance=1.0)):
        assert distance(sample_clips(pipeline, [request], settings), clip) > 0
    for other in (dataclasses.replace(request, seed=7), dataclasses.replace(request, prompt="a red ball")):
        assert distance(sample_clips(pipeline, [other], SETTINGS), clip) > 0
    with pytest.raises(ValueError, match="clip 'fox' has no prompt"):
        sample_clips(pipeline, [dataclasses.replace(request, prompt=None)], SETTINGS)
