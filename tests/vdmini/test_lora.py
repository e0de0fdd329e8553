"""A merged adapter is the weights plus its product, and a student takes its teacher's under other names."""

from __future__ import annotations

import copy
import importlib.util
import json
import re
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import WanPipeline
from safetensors.torch import save_file
from tiny_clips import same, svd_pipeline, svd_unet, weights
from tiny_transformers import FULL, TINY, TRIED
from tiny_unets import animatediff_pipeline, animatediff_unet, videocrafter_pipeline
from torch import Tensor, nn

from vdmini.checkpoint import save_student
from vdmini.errors import ModelLoadError
from vdmini.lora import MappedLora, map_lora, map_lora_file, merge_lora
from vdmini.models.loading import load_model
from vdmini.models.registry import pipeline_denoiser, replace_denoiser
from vdmini.plan import PruningPlan
from vdmini.prune import apply_plan, names_in_student, prune_pipeline
from vdmini.rules import make_plan, plan_removing
from vdmini_bench.distill.recipe import Recipe
from vdmini_bench.models.pruning import Pruning
from vdmini_bench.results.store import STUDENT
from vdmini_bench.runs.stages import prune

LAYERS = ("blocks.0.attn1.to_q", "blocks.3.ffn.net.2")
PEFT = "base_model.model."
pytestmark = [
    # Mochi asks for autocast to float32, which CPUs have no use for.
    pytest.mark.filterwarnings("ignore:In CPU autocast, but the target dtype is not supported:UserWarning"),
    pytest.mark.filterwarnings("ignore:__array_wrap__ must accept context:DeprecationWarning"),
    # diffusers adds zeros for these layers to a LoRA for words where the model takes images.
    pytest.mark.filterwarnings("ignore:While injecting the PEFT adapters.*add_[kv]_proj:RuntimeWarning"),
]
needs_peft = pytest.mark.skipif(importlib.util.find_spec("peft") is None, reason="pip install peft")
# Every pipeline of a transformer, and that of a UNet that diffusers has a loader of adapters for.
MODELS: dict[str, Callable[[], Any]] = {
    **{name: lambda tiny=tiny: tiny.build_pipeline(tiny.build_denoiser()) for name, tiny in TRIED.items()},
    "animatediff": lambda: animatediff_pipeline(animatediff_unet()),
}


@cache
def pipeline_of(name: str) -> Any:
    """A tiny pipeline, in which tests put other denoisers."""
    return MODELS[name]()


@cache
def teacher_of(name: str) -> nn.Module:
    """A tiny teacher that no test changes."""
    return copy.deepcopy(pipeline_denoiser(MODELS[name]()))


@cache
def plan_of(name: str) -> PruningPlan:
    teacher = teacher_of(name)
    return plan_removing(teacher, TINY[name].removed, "test") if name in TINY else make_plan(teacher)


def random_adapter(name: str, seed: int) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """An adapter of some twenty of a teacher's layers as peft makes it, and its configuration.

    Every other has no layer in the blocks that the plan removes; of three, one has ranks and alphas by layer and adds
    to biases, one has DoRA's magnitudes.
    """
    from peft import LoraConfig, get_peft_model, get_peft_model_state_dict

    teacher, draw = teacher_of(name), np.random.default_rng(seed)
    kept, removed = names_in_student(teacher, plan_of(name))
    # peft merges into no convolution of groups.
    layers = [
        each for each, module in teacher.named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d) and getattr(module, "groups", 1) == 1
    ]  # fmt: skip
    chosen = [each for each in layers if draw.random() < 20 / len(layers) and (seed % 2 == 0 or each not in removed)]
    chosen += [next(each for each in layers if each in (removed if seed % 2 == 0 else kept))]
    if seed % 3:
        # Else diffusers adds zeros for these, which it gives no rank of their own and no magnitudes.
        ends = [end for end in ("add_k_proj", "add_v_proj") if f"blocks.0.attn2.{end}" in layers]
        chosen += [next(each for each in layers if each.endswith(end) and each in kept) for end in ends]
    rank = int(draw.integers(4, 65))
    varied = {f"^{each}": int(draw.integers(4, 65)) for each in chosen[::2]} if seed % 3 == 1 else {}
    # A list names every layer that ends so, a text is a pattern of whole names.
    targets = chosen if seed % 2 == 0 else "|".join(map(re.escape, chosen))
    config = LoraConfig(
        r=rank, lora_alpha=int(draw.integers(1, 65)), target_modules=targets, init_lora_weights=False,
        rank_pattern=varied, alpha_pattern={each: alpha / 3 for each, alpha in varied.items()},
        use_dora=seed % 3 == 2,
    )  # fmt: skip
    torch.manual_seed(seed)
    found = get_peft_model_state_dict(get_peft_model(copy.deepcopy(teacher), config))
    for key, weight in found.items():
        if "magnitude" in key:
            weight *= 1 + torch.rand_like(weight)
    settings = {key: sorted(value) if isinstance(value, set) else value for key, value in config.to_dict().items()}
    return found, settings


def merged_by_peft(denoiser: nn.Module, adapter: Mapping[str, Tensor], config: Mapping[str, Any]) -> nn.Module:
    """A denoiser's copy with an adapter in it, by peft alone."""
    from peft import LoraConfig, get_peft_model, set_peft_model_state_dict

    wrapped = get_peft_model(copy.deepcopy(denoiser), LoraConfig(**config))
    result = set_peft_model_state_dict(wrapped, dict(adapter))
    assert not result.unexpected_keys
    assert not any("lora" in key for key in result.missing_keys)
    return wrapped.merge_and_unload()


def merged_by_diffusers(name: str, denoiser: nn.Module, file: Path) -> nn.Module:
    """A denoiser's copy with a file's adapter in it."""
    pipeline = pipeline_of(name)
    replace_denoiser(pipeline, copy.deepcopy(denoiser))
    merge_lora(pipeline, str(file))
    return pipeline_denoiser(pipeline)


def check_mapping(name: str, file: Path, mapped: Path) -> MappedLora:
    """Pruning what a file's adapter was merged into is merging the mapped file into what was pruned."""
    teacher, plan, loader = teacher_of(name), plan_of(name), type(pipeline_of(name))
    found = map_lora_file(file, loader, teacher, plan, mapped)
    changed = merged_by_diffusers(name, teacher, file)
    assert not same(weights(changed), weights(teacher))
    student = merged_by_diffusers(name, apply_plan(teacher, plan), mapped)
    assert same(weights(apply_plan(changed, plan)), weights(student))
    return found


@needs_peft
@pytest.mark.parametrize("seed", range(10 if FULL else 1))
@pytest.mark.parametrize("name", MODELS)
def test_pruning_the_merged_teacher_is_merging_into_the_student(name: str, seed: int, tmp_path: Path) -> None:
    if not hasattr(pipeline_of(name), "load_lora_weights"):
        with pytest.raises(ModelLoadError, match="diffusers merges no LoRA into"):
            merge_lora(pipeline_of(name), "a.safetensors")
        return
    # One of three kinds in turn where each family has but one.
    seed = seed if FULL else [*MODELS].index(name) % 3
    teacher, plan = teacher_of(name), plan_of(name)
    student = apply_plan(teacher, plan)
    adapter, config = random_adapter(name, seed)
    found = map_lora(adapter, teacher, plan, config)
    assert found.config is not None
    changed = merged_by_peft(teacher, adapter, config)
    assert not same(weights(changed), weights(teacher))
    assert same(weights(apply_plan(changed, plan)), weights(merged_by_peft(student, found.weights, found.config)))
    assert len(adapter) == len(found.weights) + sum(map(len, found.removed.values()))
    assert bool(found.removed) == (seed % 2 == 0)
    assert {*found.removed} <= {*plan.removed}
    # The same by diffusers, whose files have other names and say more in their header.
    part = "unet." if hasattr(pipeline_of(name), "unet") else "transformer."
    file, mapped = tmp_path / "teacher.safetensors", tmp_path / "student.safetensors"
    header = {"lora_adapter_metadata": json.dumps({f"{part}{key}": value for key, value in config.items()})}
    save_file({part + key.removeprefix(PEFT): weight for key, weight in adapter.items()}, file, header)
    written = check_mapping(name, file, mapped)
    removed = {key.replace(part, PEFT) for keys in written.removed.values() for key in keys}
    assert removed == {key for keys in found.removed.values() for key in keys}


def pairs(denoiser: nn.Module, layers: Mapping[str, str], names: tuple[str, str]) -> dict[str, Tensor]:
    """Random matrices of rank 4 for layers, under the names that another format has for these."""
    generator = torch.Generator().manual_seed(0)
    found = {}
    for layer, written in layers.items():
        weight = denoiser.get_submodule(layer).weight
        first = torch.randn(4, *weight.shape[1:], generator=generator)
        second = torch.randn(len(weight), 4, *[1] * (weight.ndim - 2), generator=generator)
        found |= {f"{written}.{names[0]}.weight": first, f"{written}.{names[1]}.weight": second}
    return found


# Wan's own names of a block's layers.
WAN = {
    **{f"attn{place}.{ours}": f"{theirs}_attn.{name}" for place, theirs in ((1, "self"), (2, "cross"))
       for ours, name in (("to_q", "q"), ("to_k", "k"), ("to_v", "v"), ("to_out.0", "o"))},
    "ffn.net.0.proj": "ffn.0", "ffn.net.2": "ffn.2",
}  # fmt: skip
# Which diffusers leaves out.
NORMS = [f"diffusion_model.blocks.{block}.norm3.{kind}" for block in (0, 1) for kind in ("diff", "diff_b")]


def wan_speed_lora() -> dict[str, Tensor]:
    """As lightx2v's: all blocks under Wan's own names, alphas, differences of biases, and of norms."""
    teacher = teacher_of("wan")
    layers = {
        f"blocks.{block}.{ours}": f"diffusion_model.blocks.{block}.{name}"
        for block in range(5)
        for ours, name in WAN.items()
    }
    found = pairs(teacher, layers, ("lora_down", "lora_up"))
    for layer, written in layers.items():
        found[f"{written}.alpha"] = torch.tensor(3.0)
        found[f"{written}.diff_b"] = torch.randn_like(teacher.get_submodule(layer).bias)
    found |= {norm: torch.zeros(24) for norm in NORMS}
    return found | pairs(teacher, {"proj_out": "diffusion_model.head.head"}, ("lora_down", "lora_up"))


def wan_of_musubi() -> dict[str, Tensor]:
    """As musubi-tuner's: every block, with "_" for ".", and alphas."""
    layers = {
        f"blocks.{block}.{ours}": f"lora_unet_blocks_{block}_{name.replace('.', '_')}"
        for block in range(5)
        for ours, name in WAN.items()
    }
    found = pairs(teacher_of("wan"), layers, ("lora_down", "lora_up"))
    return found | {f"{written}.alpha": torch.tensor(7.0) for written in layers.values()}


def hunyuanvideo_of_its_authors() -> dict[str, Tensor]:
    """As FastHunyuan's: the original's names, where one matrix stands for three layers."""
    teacher, found = teacher_of("hunyuanvideo"), {}
    for block in range(3):
        layer = f"transformer_blocks.{block}.attn.to_out.0"
        found |= pairs(teacher, {layer: f"double_blocks.{block}.img_attn_proj"}, ("lora_A", "lora_B"))
        fused = {"lora_A": torch.randn(4, 32), "lora_B": torch.randn(96, 4)}
        found |= {f"double_blocks.{block}.img_attn_qkv.{half}.weight": each for half, each in fused.items()}
    return found


def ltx_of_its_authors() -> dict[str, Tensor]:
    layers = [f"transformer_blocks.{block}.attn1.to_q" for block in range(5)]
    return pairs(teacher_of("ltx"), {layer: f"diffusion_model.{layer}" for layer in layers}, ("lora_A", "lora_B"))


UNET_LAYERS = (
    "down_blocks.0.motion_modules.1.transformer_blocks.0.attn1.to_q",
    "down_blocks.1.motion_modules.0.transformer_blocks.0.attn1.to_out.0",
    "up_blocks.3.attentions.2.transformer_blocks.0.attn2.to_k",
    "up_blocks.2.resnets.2.conv1",
    "mid_block.attentions.0.proj_in",
)


def motion_lora() -> dict[str, Tensor]:
    """As AnimateDiff's, of the time of diffusers' attention processors."""
    written = {each: f"unet.{each.replace('.to_', '.processor.to_').removesuffix('.0')}" for each in UNET_LAYERS[:3]}
    found = pairs(teacher_of("animatediff"), written, ("down", "up"))
    return {key.replace(".down.", "_lora.down.").replace(".up.", "_lora.up."): each for key, each in found.items()}


def unet_of_kohya() -> dict[str, Tensor]:
    """As kohya's scripts write them: "_" for ".", alphas, and the text encoder's layers too."""
    layers = {each: "lora_unet_" + each.replace(".", "_") for each in UNET_LAYERS[2:]}
    found = pairs(teacher_of("animatediff"), layers, ("lora_down", "lora_up"))
    text = {"encoder.layers.0.mlp.fc1": "lora_te_text_model_encoder_layers_0_mlp_fc1"}
    found |= pairs(pipeline_of("animatediff").text_encoder, text, ("lora_down", "lora_up"))
    return found | {f"{written}.alpha": torch.tensor(3.0) for written in (*layers.values(), *text.values())}


COMMUNITY: dict[str, tuple[str, Callable[[], dict[str, Tensor]], int]] = {
    "lightx2v": ("wan", wan_speed_lora, 2),
    "musubi-tuner": ("wan", wan_of_musubi, 2),
    "HunyuanVideo": ("hunyuanvideo", hunyuanvideo_of_its_authors, 1),
    "LTX-Video": ("ltx", ltx_of_its_authors, 2),
    "motion LoRA": ("animatediff", motion_lora, 1),
    "kohya": ("animatediff", unet_of_kohya, 1),
}


@needs_peft
@pytest.mark.parametrize("kind", COMMUNITY)
def test_formats_of_the_community_map_to_the_student(kind: str, tmp_path: Path) -> None:
    name, write, blocks = COMMUNITY[kind]
    save_file(write(), tmp_path / "teacher.safetensors")
    found = check_mapping(name, tmp_path / "teacher.safetensors", tmp_path / "student.safetensors")
    assert len(found.removed) == blocks
    assert sorted(found.unread) == (sorted(NORMS) if kind == "lightx2v" else [])


def two_experts(denoiser: nn.Module) -> WanPipeline:
    """Wan 2.2's pipeline, both experts with the same weights."""
    parts = {**pipeline_of("wan").components, "transformer": denoiser, "transformer_2": copy.deepcopy(denoiser)}
    return WanPipeline(**{**parts, "boundary_ratio": 0.5})


@needs_peft
def test_a_lora_goes_into_the_expert_it_is_for(tmp_path: Path) -> None:
    teacher, plan = teacher_of("wan"), plan_of("wan")
    file, mapped = tmp_path / "low_noise.safetensors", tmp_path / "mapped.safetensors"
    save_file(wan_speed_lora(), file)
    pipeline, student = (two_experts(copy.deepcopy(teacher)) for _ in range(2))
    merge_lora(pipeline, str(file), second_expert=True)
    assert same(weights(pipeline.transformer), weights(teacher))
    assert same(weights(pipeline.transformer_2), weights(merged_by_diffusers("wan", teacher, file)))
    prune_pipeline(student, plan)
    map_lora_file(file, WanPipeline, teacher, plan, mapped)
    merge_lora(student, str(mapped), second_expert=True)
    prune_pipeline(pipeline, plan)
    for one, other in ((student.transformer, pipeline.transformer), (student.transformer_2, pipeline.transformer_2)):
        assert same(weights(one), weights(other))
    with pytest.raises(ModelLoadError, match="leave second_expert out"):
        merge_lora(tiny_wan(), str(file), second_expert=True)


def test_what_is_no_lora_of_the_teacher_is_not_mapped(tmp_path: Path) -> None:
    teacher, plan = teacher_of("wan"), plan_of("wan")
    own, file, out = wan_of_musubi(), tmp_path / "a.safetensors", tmp_path / "out" / "b.safetensors"
    plain = pairs(teacher, {layer: f"transformer.{layer}" for layer in LAYERS}, ("lora_A", "lora_B"))
    for content, said in (
        ({key: torch.zeros(4, 8) if "_A" in key else each for key, each in plain.items()}, "2 of 4 keys, such as"),
        ({key.replace("blocks.3", "blocks.5"): each for key, each in plain.items()}, "transformer.blocks.5.ffn.net.2"),
        ({"transformer.proj_out.weight": torch.zeros(1)}, "fit no layer of this WanTransformer3DModel"),
        ({key.removeprefix("transformer."): weight for key, weight in plain.items()}, "not all of its keys begin"),
        ({"text_encoder.proj_out.weight": torch.zeros(1)}, "no layer of a block that is kept"),
        ({key: weight for key, weight in own.items() if "blocks_2" not in key}, "is no LoRA of a WanPipeline"),
        (own | {"lora_unet_blocks_0_ffn_2.dora_scale": torch.ones(1)}, "leaves 'dora_scale' out"),
        ({key: weight for key, weight in plain.items() if "blocks.3" in key}, "no layer of a block that is kept"),
    ):
        save_file(content, file)
        with pytest.raises(ModelLoadError, match=said):
            map_lora_file(file, WanPipeline, teacher, plan, out)
        assert not out.exists()
    save_file(plain, file)
    map_lora_file(file, WanPipeline, teacher, plan, out)
    with pytest.raises(ModelLoadError, match="was mapped for a student"):
        map_lora_file(out, WanPipeline, teacher, plan, file)


@needs_peft
def test_a_suites_row_from_a_student_gets_the_mapped_lora(tmp_path: Path) -> None:
    teacher, plan, file = teacher_of("wan"), plan_of("wan"), tmp_path / "lora.safetensors"
    save_file(wan_speed_lora(), file)
    folders = tmp_path / "teacher", tmp_path / "parent"
    for folder, denoiser in zip(folders, (teacher, apply_plan(teacher, plan)), strict=True):
        pipeline = pipeline_of("wan")
        replace_denoiser(pipeline, denoiser)
        save_student(folder, pipeline, plan, {})
    recipe = Recipe(
        teacher=str(folders[0]), teacher_sha256="", pruning=Pruning("none"), lora=str(file), dtype="float32",
        clips=lambda model, folder: None, count=0, frames=0, height=0, width=0, encoding=None, distill=None,
        parent=(str(folders[1]), ""),
    )  # fmt: skip
    prune.run_stage(SimpleNamespace(recipe=lambda subject: recipe), "row", tmp_path / "row")
    changed = apply_plan(merged_by_diffusers("wan", teacher, file), plan)
    assert same(weights(load_model(tmp_path / "row" / STUDENT).denoiser), weights(changed))


@needs_peft
def test_a_teachers_lora_is_not_merged_into_its_student(tmp_path: Path) -> None:
    save_file(wan_of_musubi(), tmp_path / "teacher.safetensors")
    with pytest.raises(ModelLoadError, match="30 of its 50 layers fit"):
        merged_by_diffusers("wan", apply_plan(teacher_of("wan"), plan_of("wan")), tmp_path / "teacher.safetensors")


def tiny_wan() -> Any:
    return TINY["wan"].build_pipeline(TINY["wan"].build_denoiser())


def write_lora(denoiser: Any, layers: tuple[str, ...], file: Path, prefix: str = "transformer.") -> dict[str, Tensor]:
    """The products of an adapter of rank 2, by layer."""
    generator, products, saved = torch.Generator().manual_seed(0), {}, {}
    for layer in layers:
        rows, columns = denoiser.get_submodule(layer).weight.shape
        first, second = torch.randn(2, columns, generator=generator), torch.randn(rows, 2, generator=generator)
        saved |= {f"{prefix}{layer}.lora_A.weight": first, f"{prefix}{layer}.lora_B.weight": second}
        products[f"{layer}.weight"] = second @ first
    save_file(saved, file)
    return products


@needs_peft
def test_the_merged_weights_are_the_old_ones_plus_the_product(tmp_path: Path) -> None:
    pipeline = tiny_wan()
    before = {name: weight.clone() for name, weight in pipeline.transformer.state_dict().items()}
    products = write_lora(pipeline.transformer, LAYERS, tmp_path / "a.safetensors")
    merge_lora(pipeline, str(tmp_path / "a.safetensors"))
    after = pipeline.transformer.state_dict()
    assert after.keys() == before.keys()
    for name, weight in after.items():
        torch.testing.assert_close(weight, before[name] + products.get(name, 0))


@needs_peft
def test_files_that_do_not_fit_are_refused_and_change_nothing(tmp_path: Path) -> None:
    pipeline, file = tiny_wan(), tmp_path / "a.safetensors"
    before = {name: weight.clone() for name, weight in pipeline.transformer.state_dict().items()}
    shorter = tiny_wan()
    shorter.transformer.blocks = shorter.transformer.blocks[:2]
    write_lora(pipeline.transformer, LAYERS, file)
    with pytest.raises(ModelLoadError, match="1 of its 2 layers fit"):
        merge_lora(shorter, str(file))
    write_lora(pipeline.transformer, LAYERS, file, prefix="another.")
    with pytest.raises(ModelLoadError, match="not all of its keys begin"):
        merge_lora(pipeline, str(file))
    file.write_bytes(b"damaged")
    with pytest.raises(ModelLoadError, match="cannot be merged into WanPipeline"):
        merge_lora(pipeline, str(file))
    after = pipeline.transformer.state_dict()
    assert all(torch.equal(weight, before[name]) for name, weight in after.items())
    assert after.keys() == before.keys()


def test_pipelines_without_lora_and_a_missing_peft_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not hasattr(videocrafter_pipeline("ddim"), "load_lora_weights")
    with pytest.raises(ModelLoadError, match="no LoRA into StableVideoDiffusionPipeline"):
        merge_lora(svd_pipeline(svd_unet()), "a.safetensors")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModelLoadError, match="pip install peft"):
        merge_lora(tiny_wan(), "a.safetensors")
