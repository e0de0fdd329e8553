"""A merged adapter is the weights plus its product, and a student takes its teacher's under other names."""

from __future__ import annotations

import copy
import importlib.util
import json
import re
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import WanPipeline
from safetensors.torch import load_file, save_file
from tiny_clips import same, svd_pipeline, svd_unet, weights
from tiny_transformers import TINY
from tiny_unets import animatediff_pipeline, animatediff_unet, videocrafter_pipeline
from torch import Tensor, nn

from vdmini.errors import ModelLoadError
from vdmini.lora import MAPPED, MappedLora, lora_loader, map_lora, map_lora_file, merge_lora
from vdmini.models.registry import pipeline_denoiser, replace_denoiser
from vdmini.plan import PruningPlan
from vdmini.prune import apply_plan, names_in_student, prune_pipeline
from vdmini.rules import make_plan, plan_removing

LAYERS = ("blocks.0.attn1.to_q", "blocks.3.ffn.net.2")
PEFT = "base_model.model."
needs_peft = pytest.mark.skipif(importlib.util.find_spec("peft") is None, reason="pip install peft")
# Every pipeline that diffusers has a loader of adapters for.
MODELS: dict[str, Callable[[], Any]] = {
    **{name: lambda tiny=tiny: tiny.build_pipeline(tiny.build_denoiser()) for name, tiny in TINY.items()},
    "animatediff": lambda: animatediff_pipeline(animatediff_unet()),
}
LOADABLE = [name for name, build in MODELS.items() if hasattr(build(), "load_lora_weights")]


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
    """An adapter of a third of a teacher's layers as peft makes it, and its configuration.

    Every other has no layer in the blocks that the plan removes; of three, one has ranks and alphas by layer and adds
    to biases, one has DoRA's magnitudes.
    """
    from peft import LoraConfig, get_peft_model, get_peft_model_state_dict

    teacher, draw = teacher_of(name), np.random.default_rng(seed)
    kept, removed = names_in_student(teacher, plan_of(name))
    layers = [each for each, module in teacher.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)]
    chosen = [each for each in layers if draw.random() < 1 / 3 and (seed % 2 == 0 or each not in removed)]
    chosen += [next(each for each in layers if each in (removed if seed % 2 == 0 else kept))]
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
@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("name", LOADABLE)
def test_pruning_the_merged_teacher_is_merging_into_the_student(name: str, seed: int, tmp_path: Path) -> None:
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
