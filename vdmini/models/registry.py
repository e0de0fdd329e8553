"""Which families and published models there are, and the family of a denoiser."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, cast

from vdmini.blocks import Block, BlockGraph, ModelInput
from vdmini.errors import ModelLoadError, nearest
from vdmini.models.family import Family

if TYPE_CHECKING:
    from diffusers.pipelines.pipeline_utils import DiffusionPipeline
    from torch import nn


# One module a family; each implements `Family`.
FAMILIES = {
    "svd": "vdmini.models.svd",
    "videocrafter2": "vdmini.models.videocrafter",
    "animatediff": "vdmini.models.animatediff",
    "hunyuanvideo": "vdmini.models.hunyuanvideo",
    "wan": "vdmini.models.wan",
    "cogvideox": "vdmini.models.cogvideox",
    "ltx": "vdmini.models.ltx",
    "mochi": "vdmini.models.mochi",
}


# Published models that can be built without their weights, and the family of each; a family's name means its first.
OFFICIAL = {
    "svd": "svd",
    "svd-xt": "svd",
    "videocrafter2": "videocrafter2",
    "t2v-turbo-v2": "videocrafter2",
    "animatediff": "animatediff",
    "animatediff-v3": "animatediff",
    "hunyuanvideo": "hunyuanvideo",
    "wan2.1-t2v-1.3b": "wan",
    "wan2.1-t2v-14b": "wan",
    "wan2.2-t2v-a14b": "wan",
    "cogvideox-2b": "cogvideox",
    "cogvideox-5b": "cogvideox",
    "ltx-video-2b": "ltx",
    "mochi-1-preview": "mochi",
}


# What pipelines call their denoisers; the last is of the later steps, where a pipeline has one for these.
DENOISERS = ("unet", "transformer", "transformer_2")


EMBEDDED = {
    "embedded/svd": Path(__file__).parents[1] / "weights" / "svd",
    "embedded/t2v": Path(__file__).parents[1] / "weights" / "t2v",
}


@dataclass(frozen=True)
class VideoModel:
    """A loaded model: its denoiser, and the VAE and pipeline around it where the source has them."""

    source: str
    family: str
    denoiser: nn.Module
    vae: nn.Module | None
    pipeline: DiffusionPipeline | None

    @cached_property
    def blocks(self) -> BlockGraph:
        """The denoiser's blocks and their costs at the family's default input, which the graph states."""
        return block_graph(self.denoiser)


def is_published(name: str) -> bool:
    """Whether a name is a published model's or a family's, to be built without weights."""
    return name in OFFICIAL or name in FAMILIES


def block_graph(denoiser: nn.Module, size: ModelInput | None = None) -> BlockGraph:
    """A denoiser's blocks with their weights and FLOPs at `size`, or at the family's default input.

    Raises ModelLoadError when no family knows the denoiser.
    """
    from vdmini.cost import count_parameters, flops_by_block

    family = family_of(denoiser)
    size = size or family.default_input(denoiser)
    modules = family.block_modules(denoiser)
    flops = flops_by_block(denoiser, family.example_inputs(denoiser, size), family.block_modules)
    stages = family.stage_modules(denoiser)
    blocks = []
    for name, submodules in modules.items():
        stage = name if name in stages else name.rpartition(".")[0]
        blocks.append(
            Block(
                name=name,
                stage=stage or name,
                depth=family.block_depth(denoiser, name),
                params=sum(count_parameters(submodule) for submodule in submodules),
                flops=flops[name],
                prunable=stage in stages,
            )
        )
    graph = BlockGraph(family=family.NAME, input=size, blocks=tuple(blocks), units=family.units(denoiser))
    if graph.params != count_parameters(denoiser):
        raise ValueError(
            f"blocks of {type(denoiser).__name__} hold {graph.params} weights of {count_parameters(denoiser)}"
        )
    return graph


def family_named(name: str) -> Family:
    """The family of a name; raises ModelLoadError for a name that is not registered."""
    if name not in FAMILIES:
        raise ModelLoadError(f"unknown family {name!r}{nearest(name, FAMILIES)}: choose one of {', '.join(FAMILIES)}")
    return cast(Family, importlib.import_module(FAMILIES[name]))


def family_of(denoiser: nn.Module) -> Family:
    """The family a denoiser belongs to; raises ModelLoadError when no family knows its class."""
    for name in FAMILIES:
        if family_named(name).matches(denoiser):
            return family_named(name)
    raise ModelLoadError(
        f"no family knows {type(denoiser).__name__}: give the denoiser itself, out of any wrapper, of a"
        f" model of one of the families {', '.join(FAMILIES)}"
    )


def replace_denoiser(pipeline: DiffusionPipeline, denoiser: nn.Module) -> None:
    """Put another denoiser in the place of a pipeline's own; raises ModelLoadError where it has none."""
    original = pipeline_denoiser(pipeline)
    setattr(pipeline, "unet" if getattr(pipeline, "unet", None) is original else "transformer", denoiser)


def pipeline_denoiser(pipeline: DiffusionPipeline) -> nn.Module:
    """A pipeline's UNet or transformer; raises ModelLoadError where it has neither."""
    denoiser: nn.Module | None = getattr(pipeline, "unet", None) or getattr(pipeline, "transformer", None)
    if denoiser is None:
        raise ModelLoadError(f"a {type(pipeline).__name__} has no denoiser: give a video pipeline")
    return denoiser
