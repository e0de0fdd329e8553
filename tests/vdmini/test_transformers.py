"""Students of video transformers are their teachers with blocks cut out, in classes that diffusers loads by itself."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import itertools
import json
from typing import Any

import forked
import numpy as np
import pytest
import torch
from diffusers.models.modeling_outputs import Transformer2DModelOutput
from numpy.typing import NDArray
from published_hunyuan import CONVERTED_HUNYUAN, PUBLISHED_HUNYUAN
from published_others import OTHERS
from published_wan import CONVERTED_WAN, PUBLISHED_WAN
from tiny_transformers import TINY, TRIED, Tiny, real_inputs
from torch import nn

from vdmini.blocks import ModelInput
from vdmini.cost import count_flops, count_parameters
from vdmini.errors import PlanError
from vdmini.features import FeatureTap, feature_pairs
from vdmini.models import registry
from vdmini.models.family import Family
from vdmini.models.loading import load_model
from vdmini.models.registry import VideoModel, block_graph, family_named
from vdmini.plan import PruningPlan, architecture_sha256
from vdmini.prune import apply_plan

PUBLISHED = {
    "hunyuanvideo": ("hunyuanvideo", "12.821"),
    "wan2.1-t2v-1.3b": ("wan", "1.419"),
    "wan2.1-t2v-14b": ("wan", "14.288"),
    "wan2.2-t2v-a14b": ("wan", "14.288"),
    "cogvideox-2b": ("cogvideox", "1.694"),
    "cogvideox-5b": ("cogvideox", "5.570"),
    "ltx-video-2b": ("ltx", "1.923"),
    "mochi-1-preview": ("mochi", "10.028"),
    **{name: (family, billions) for name, (family, billions, _) in OTHERS.items()},
    **PUBLISHED_HUNYUAN,
    **PUBLISHED_WAN,
}
# What diffusers' scripts/convert_*_to_diffusers.py pass to the class to convert the published files, which then load
# strictly; all else is the class's default.
CONVERTED = {
    "hunyuanvideo": {},
    "wan2.1-t2v-1.3b": {"num_attention_heads": 12, "ffn_dim": 8960, "num_layers": 30},
    "wan2.1-t2v-14b": {"num_attention_heads": 40, "ffn_dim": 13824, "num_layers": 40},
    "wan2.2-t2v-a14b": {"num_attention_heads": 40, "ffn_dim": 13824, "num_layers": 40},
    "cogvideox-2b": {"num_attention_heads": 30, "num_layers": 30, "use_rotary_positional_embeddings": False},
    "cogvideox-5b": {"num_attention_heads": 48, "num_layers": 42, "use_rotary_positional_embeddings": True},
    "ltx-video-2b": {},
    "mochi-1-preview": {},
    **{name: converted for name, (*_, converted) in OTHERS.items()},
    **CONVERTED_HUNYUAN,
    **CONVERTED_WAN,
}
pytestmark = [
    # Mochi asks for autocast to float32, which CPUs have no use for.
    pytest.mark.filterwarnings("ignore:In CPU autocast, but the target dtype is not supported:UserWarning"),
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"),
    # Helios' scheduler hands torch's numbers to numpy.
    pytest.mark.filterwarnings("ignore:__array_wrap__ must accept context:DeprecationWarning"),
]
every_tiny = pytest.mark.parametrize("tiny", TRIED.values(), ids=[*TRIED])
SAMPLED = {name: tiny for name, tiny in TRIED.items() if tiny.samples}
every_sampled = pytest.mark.parametrize("tiny", SAMPLED.values(), ids=[*SAMPLED])


@pytest.fixture(scope="module")
def hunyuanvideo() -> VideoModel:
    """HunyuanVideo at its published size, without memory."""
    return load_model("hunyuanvideo", random_weights=True, device="meta")


def family_of(tiny: Tiny) -> Family:
    """The family's object."""
    return family_named(tiny.family)


def plan_for(denoiser: nn.Module, removed: tuple[str, ...]) -> PruningPlan:
    """The plan that removes just these blocks."""
    family = registry.family_of(denoiser)
    names = [name for unit in family.units(denoiser) for name in unit.blocks]
    return PruningPlan(
        family=family.name,
        teacher=architecture_sha256(family.architecture(denoiser)),
        rule="by hand",
        kept=tuple(name for name in names if name not in removed),
        removed=tuple(name for name in names if name in removed),
        skips=(),
    )


NOTHING_ADDED = {
    "WanVACETransformerBlock": lambda hidden, text, control, *_: (torch.zeros_like(hidden), control),
    "WanAnimateFaceBlockCrossAttention": lambda hidden, motion: torch.zeros_like(hidden),
}


def edited(teacher: nn.Module, removed: tuple[str, ...]) -> nn.Module:
    """The teacher itself with blocks taken out of its lists, or made to do nothing where others know their places."""
    net = copy.deepcopy(teacher)
    if hasattr(net, "vace_blocks") or hasattr(net, "face_adapter"):
        for name in removed:
            *beside, block = block_modules(net)[name]
            block.forward = lambda hidden, *_: hidden
            for module in beside:
                module.forward = NOTHING_ADDED[type(module).__name__]
        return net
    gone = {id(module) for name, modules in block_modules(net).items() if name in removed for module in modules}
    if hasattr(net, "num_decoder_layers"):
        net.num_decoder_layers -= sum(name.startswith("Decoder.") for name in removed)
    for attribute, modules in [*net.named_children()]:
        if isinstance(modules, nn.ModuleList):
            setattr(net, attribute, nn.ModuleList(module for module in modules if id(module) not in gone))
    return net


def block_modules(denoiser: nn.Module) -> dict[str, tuple[nn.Module, ...]]:
    """The submodules of every block."""
    return registry.family_of(denoiser).block_modules(denoiser)


@pytest.mark.parametrize("name", PUBLISHED)
def test_official_models_have_the_published_sizes(name: str) -> None:
    model = load_model(name, random_weights=True, device="meta")
    family, billions = PUBLISHED[name]
    assert model.family == family
    assert f"{count_parameters(model.denoiser) / 1e9:.3f}" == billions
    assert model.vae is not None


@pytest.mark.parametrize("name", PUBLISHED)
def test_official_models_are_configured_as_the_published_files_are_converted(name: str) -> None:
    module = family_named(PUBLISHED[name][0])
    (denoiser_class,) = module.denoiser_classes().values()
    parameters = inspect.signature(denoiser_class).parameters.values()
    denoiser = load_model(name, random_weights=True, device="meta").denoiser
    assert module.architecture(denoiser) == {each.name: each.default for each in parameters} | CONVERTED[name]


@pytest.mark.parametrize(("dual", "single", "billions"), [(16, 32, "10.33"), (20, 28, "11.12"), (12, 36, "9.54")])
def test_hunyuanvideo_gets_a_fifth_cheaper_whichever_twelve_blocks_leave(
    hunyuanvideo: VideoModel, dual: int, single: int, billions: str
) -> None:
    gone = (*(f"Dual.{index}" for index in range(dual, 20)), *(f"Single.{index}" for index in range(single, 40)))
    student = block_graph(apply_plan(hunyuanvideo.denoiser, plan_for(hunyuanvideo.denoiser, gone)))
    left = hunyuanvideo.blocks.without(gone)
    assert f"{student.params / 1e9:.2f}" == billions
    assert f"{hunyuanvideo.blocks.flops / student.flops:.2f}" == "1.25"
    assert (student.params, student.flops) == (left.params, left.flops)


def test_hunyuanvideo_costs_what_was_published_at_both_sizes(hunyuanvideo: VideoModel) -> None:
    # 97x544x960 pixels are 25 * 34 * 60 = 51,000 video tokens; with them go 256 text tokens.
    large = block_graph(hunyuanvideo.denoiser, ModelInput(batch=1, frames=33, height=90, width=160))
    for graph, total, each in ((hunyuanvideo.blocks, "2.634", "0.0439"), (large, "12.069", "0.2011")):
        assert f"{graph.flops / 1e15:.3f}" == total
        assert {f"{block.flops / 1e15:.4f}" for block in graph.blocks if block.prunable} == {each}
    assert {f"{block.params / 1e6:.2f}" for block in large.stage("Dual")} == {"339.83"}
    assert {f"{block.params / 1e6:.2f}" for block in large.stage("Single")} == {"141.59"}


@every_tiny
def test_every_unit_can_leave_alone_and_takes_its_own_cost(tiny: Tiny) -> None:
    teacher = tiny.build_denoiser()
    graph = block_graph(teacher)
    assert [name for unit in graph.units for name in unit.blocks] == [*graph.prunable]
    first = graph.units[0].blocks
    student = block_graph(apply_plan(teacher, plan_for(teacher, first)))
    left = graph.without(first)
    assert [(block.params, block.flops) for block in student.blocks] == [
        (block.params, block.flops) for block in left.blocks
    ]
    assert len(student.stages) == len(graph.stages)


@every_tiny
def test_blocks_that_are_alike_count_as_if_each_had_run(tiny: Tiny) -> None:
    teacher = tiny.build_denoiser()
    family = family_of(tiny)
    inputs = family.example_inputs(teacher, family.default_input(teacher))
    assert sum(block.flops for block in block_graph(teacher).blocks) == count_flops(teacher, inputs)


@every_tiny
@torch.no_grad()
def test_student_equals_the_teacher_with_blocks_deleted(tiny: Tiny) -> None:
    teacher = tiny.build_denoiser()
    student = apply_plan(teacher, plan_for(teacher, tiny.removed))
    inputs = real_inputs(tiny, teacher)
    output = student(**inputs).sample
    assert type(student) is type(teacher)
    assert not any(tensor.is_meta for tensor in (*student.parameters(), *student.buffers()))
    assert torch.equal(output, edited(teacher, tiny.removed)(**inputs).sample)
    assert not torch.allclose(output, teacher(**inputs).sample)


@every_tiny
def test_a_class_whose_blocks_do_not_run_as_known_is_refused(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    teacher = tiny.build_denoiser()
    forward = type(teacher).forward

    def scaled(self: nn.Module, *args: object, **kwargs: object) -> Transformer2DModelOutput:
        # As if what follows depended on how many blocks there are.
        output = forward(self, *args, **kwargs)
        blocks = family_of(tiny).blocks(self)
        return dataclasses.replace(output, sample=output.sample * len(blocks))

    monkeypatch.setattr(type(teacher), "forward", scaled)
    with pytest.raises(PlanError, match="is not itself with these blocks bypassed"):
        apply_plan(teacher, plan_for(teacher, tiny.removed))
    assert "forward" not in vars(family_of(tiny).blocks(teacher)[tiny.removed[0]])


@every_tiny
def test_student_owns_its_weights(tiny: Tiny) -> None:
    teacher = tiny.build_denoiser()
    before = {name: tensor.clone() for name, tensor in teacher.state_dict().items()}
    student = apply_plan(teacher, plan_for(teacher, tiny.removed))
    with torch.no_grad():
        for tensor in (*student.parameters(), *student.buffers()):
            tensor.zero_()
    assert all(torch.equal(tensor, before[name]) for name, tensor in teacher.state_dict().items())
    assert not any(buffer.any() for buffer in student.buffers())
    assert all(buffer.any() for buffer in teacher.buffers())


def give_back(block: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any], output: Any) -> Any:
    """In the place of what a block puts out, what came in: hidden states come first, in and out."""
    given = (*arguments, *named.values())
    return given[: len(output)] if isinstance(output, tuple) else given[0]


@every_tiny
@torch.no_grad()
def test_paired_features_agree_where_the_removed_blocks_do_nothing(tiny: Tiny) -> None:
    teacher = tiny.build_denoiser()
    for name in tiny.removed:
        *beside, block = block_modules(teacher)[name]
        block.register_forward_hook(give_back, with_kwargs=True)
        for weight in nn.ModuleList(beside).parameters():
            weight.zero_()
    plan = plan_for(teacher, tiny.removed)
    student = apply_plan(teacher, plan)
    inputs = real_inputs(tiny, teacher)
    student_blocks, teacher_blocks = zip(*feature_pairs(plan), strict=True)
    with FeatureTap(student, student_blocks) as student_tap, FeatureTap(teacher, teacher_blocks) as teacher_tap:
        assert torch.equal(student(**inputs).sample, teacher(**inputs).sample)
    features = student_tap.features
    assert all(torch.equal(*pair) for pair in zip(features, teacher_tap.features, strict=True))
    assert not any(torch.equal(one, other) for one, other in itertools.pairwise(features))


def test_features_pair_a_block_with_the_last_one_it_answers_for() -> None:
    hunyuanvideo, mochi = family_named("hunyuanvideo"), family_named("mochi")
    kept = [f"Dual.{index}" for index in (0, 1, 4)] + [f"Single.{index}" for index in range(0, 16, 2)]
    removed = ["Dual.2", "Dual.3", "Dual.5"] + [f"Single.{index}" for index in range(1, 16, 2)]
    assert hunyuanvideo.feature_pairs(kept, removed) == [
        ("Dual.0", "Dual.0"),
        ("Dual.1", "Dual.3"),
        ("Dual.2", "Dual.5"),
        ("Single.1", "Single.3"),
        ("Single.3", "Single.7"),
        ("Single.5", "Single.11"),
        ("Single.7", "Single.15"),
    ]
    assert mochi.feature_pairs(["Block.1"], ["Block.0", "Block.2"]) == [
        ("Block.0", "Block.2"),
        ("last_block", "last_block"),
    ]


@every_tiny
def test_a_stage_puts_out_what_its_last_block_does(tiny: Tiny) -> None:
    teacher = tiny.build_denoiser()
    last = {name.rpartition(".")[0]: name for unit in family_of(tiny).units(teacher) for name in unit.blocks}
    with FeatureTap(teacher, [*last, *last.values()]) as tap, torch.no_grad():
        teacher(**real_inputs(tiny, teacher))
    stages = len(last)
    assert all(torch.equal(*pair) for pair in zip(tap.features[:stages], tap.features[stages:], strict=True))


@every_tiny
def test_gradient_checkpointing_gives_the_same_gradients(tiny: Tiny) -> None:
    teacher = tiny.build_denoiser()
    inputs = real_inputs(tiny, teacher)
    gradients = []
    for checkpointing in (False, True):
        student = apply_plan(teacher, plan_for(teacher, tiny.removed)).train()
        if checkpointing:
            student.enable_gradient_checkpointing()
        student(**inputs).sample.square().mean().backward()
        gradients.append({name: parameter.grad for name, parameter in student.named_parameters()})
    trained = [name for name, gradient in gradients[0].items() if gradient is not None]
    assert len(trained) > 0.9 * len(gradients[0])
    assert all(torch.equal(gradients[0][name], gradients[1][name]) for name in trained)


@every_tiny
def test_plans_that_leave_a_stack_empty_or_name_other_blocks_are_refused(tiny: Tiny) -> None:
    teacher = tiny.build_denoiser()
    units = family_of(tiny).units(teacher)
    names = [name for unit in units for name in unit.blocks]
    stage = names[0].rpartition(".")[0]
    gone = tuple(name for unit in units if unit.blocks[0].startswith(stage) for name in unit.blocks)
    with pytest.raises(PlanError, match=f"removes every block of {stage}: keep at least one"):
        apply_plan(teacher, plan_for(teacher, gone))
    with pytest.raises(PlanError, match="'last_block' is no block"):
        family_of(tiny).student_names([*names, "last_block"], [])
    with pytest.raises(PlanError, match=r"'Mid' is no block of a .*blocks are called"):
        family_of(tiny).feature_pairs(names, ["Mid"])


def test_mochis_last_block_stays_last() -> None:
    teacher = TINY["mochi"].build_denoiser()
    graph = block_graph(teacher)
    assert graph.prunable == ("Block.0", "Block.1", "Block.2", "Block.3")
    student = apply_plan(teacher, plan_for(teacher, ("Block.3",)))
    assert [block.context_pre_only for block in student.transformer_blocks] == [False, False, False, True]
    last, teachers_last = student.transformer_blocks[-1], teacher.transformer_blocks[-1]
    assert torch.equal(last.ff.net[2].weight, teachers_last.ff.net[2].weight)


# Weights mapped from a file lie at any address, and the last bit of a matrix product may depend on the address: copies
# lie where those of a student in memory do.
RELOAD = """
import copy, json, sys, diffusers, numpy, torch
from PIL import Image
from cosmos_parts import loaded_with
for folder, call in json.loads(sys.argv[1]).items():
    native = getattr(diffusers, call.pop("pipeline"))
    pipeline = native.from_pretrained(folder, **loaded_with(native.__name__))
    for name, part in pipeline.components.items():
        if isinstance(part, torch.nn.Module):
            setattr(pipeline, name, copy.deepcopy(part))
    if native is diffusers.AllegroPipeline:
        pipeline.vae.enable_tiling()
    clips = []
    for prompts, seeds, size in call.pop("batches"):
        images = {}
        if size:
            drawn = [numpy.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=numpy.uint8) for seed in seeds]
            images["image"] = [Image.fromarray(each) for each in drawn]
            images["image"] = images["image"] if len(seeds) > 1 else images["image"][0]
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        if len(seeds) == 1:
            prompts, generators = prompts[0], generators[0]
        made = pipeline(prompt=prompts, **images, **call, generator=generators, output_type="np")
        clips.append(numpy.asarray(made.frames))
    numpy.save(f"{folder}/clips.npy", numpy.concatenate(clips))
assert "vdmini" not in sys.modules
"""


@pytest.fixture(scope="module")
def sampled(
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """Two clips of each tiny student's pipeline: sampled here, and from its folder by a process without vdmini."""
    calls, here, folders = {}, {}, {}
    for name, tiny in SAMPLED.items():
        teacher = tiny.build_denoiser()
        pipeline = tiny.build_pipeline(apply_plan(teacher, plan_for(teacher, tiny.removed)))
        family = family_of(tiny)
        here[name] = family.sample(pipeline, tiny.requests, tiny.settings)
        folders[name] = tmp_path_factory.mktemp(name)
        pipeline.save_pretrained(folders[name])
        alone = not (family.batches_images if tiny.image else family.batches_prompts)
        batches = [[request] for request in tiny.requests] if alone else [tiny.requests]
        size = (tiny.height, tiny.width) if tiny.image else None
        native = type(pipeline).__name__
        if tiny.image and "image" not in inspect.signature(pipeline.__call__).parameters:
            native = family.image_pipeline
        calls[str(folders[name])] = {
            "pipeline": native,
            "batches": [[[each.prompt for each in some], [each.seed for each in some], size] for some in batches],
            "num_inference_steps": tiny.settings.steps,
            tiny.frames_argument: tiny.frames,
            **({"height": tiny.height, "width": tiny.width} if tiny.sized else {}),
            **tiny.arguments,
        }
    done = forked.run("-c", RELOAD, json.dumps(calls))
    assert done.returncode == 0, done.stderr
    return {name: (clips, np.load(folders[name] / "clips.npy")) for name, clips in here.items()}


@pytest.mark.parametrize("name", SAMPLED)
def test_diffusers_alone_reloads_a_students_pipeline_and_samples_the_same_clips(
    sampled: dict[str, tuple[NDArray[np.float32], NDArray[np.float32]]], name: str
) -> None:
    here, there = sampled[name]
    tiny = TINY[name]
    assert here.shape == (2, tiny.frames, tiny.height, tiny.width, 3)
    assert 0 <= here.min() < here.max() <= 1
    assert here.tobytes() == there.tobytes()


@every_sampled
def test_a_clip_depends_on_its_own_request(tiny: Tiny) -> None:
    pipeline = tiny.build_pipeline(tiny.build_denoiser())
    sample, settings = family_of(tiny).sample, tiny.settings
    together = sample(pipeline, tiny.requests, settings)
    for request, clip in zip(tiny.requests, together, strict=True):
        # A grey level at most: Cosmos rounds to these.
        assert np.abs(sample(pipeline, [request], settings)[0] - clip).max() < 0.004
    first = tiny.requests[0]
    for changed in (dataclasses.replace(first, seed=9), dataclasses.replace(first, prompt="red dog")):
        assert np.abs(sample(pipeline, [changed], settings)[0] - together[0]).max() > 1e-6
    for setting in (tiny.guided, {"steps": 3}):
        other = dataclasses.replace(settings, **setting)
        assert np.abs(sample(pipeline, [first], other)[0] - together[0]).max() > 1e-6
    with pytest.raises(ValueError, match=r"frames, not 12: ask for \d+ frames"):
        sample(pipeline, [first], dataclasses.replace(settings, frames=12))
    with pytest.raises(ValueError, match="clip 'one' has no prompt"):
        sample(pipeline, [dataclasses.replace(first, prompt=None)], settings)


def test_ltx_is_told_the_frame_rate() -> None:
    tiny = TINY["ltx"]
    pipeline = tiny.build_pipeline(tiny.build_denoiser())
    slow, fast = (dataclasses.replace(tiny.settings, frames_per_second=rate) for rate in (5, 30))
    one, other = (family_of(tiny).sample(pipeline, tiny.requests[:1], settings) for settings in (slow, fast))
    assert np.abs(one - other).max() > 1e-6
