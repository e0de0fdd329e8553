"""Video diffusion models: where they load from, and what each family says about its blocks."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol, cast

from vdmini.blocks import Block, BlockGraph, ModelInput, Unit
from vdmini.plan import nearest

if TYPE_CHECKING:
    import numpy as np
    import torch
    from diffusers.pipelines.pipeline_utils import DiffusionPipeline
    from numpy.typing import NDArray
    from torch import Tensor, nn

    from vdmini.sample import ClipRequest, SampleSettings
    from vdmini.tasks import Task

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


class ModelLoadError(RuntimeError):
    """A model that cannot be loaded; the message names the source and says what to do."""


class Family(Protocol):
    """What a family's module must say, so that planning, pruning and distilling need not know the family."""

    NAME: str

    def matches(self, denoiser: nn.Module) -> bool: ...
    def build_official(self, name: str) -> tuple[nn.Module, nn.Module]: ...
    def load_original(self, name: str, path: Path) -> nn.Module: ...
    def denoiser_classes(self) -> dict[str, type[nn.Module]]: ...
    def default_task(self, denoiser: nn.Module) -> Task: ...
    def default_input(self, denoiser: nn.Module) -> ModelInput: ...
    def example_inputs(self, denoiser: nn.Module, size: ModelInput) -> dict[str, Tensor]: ...
    def architecture(self, denoiser: nn.Module) -> dict[str, object]: ...
    def block_modules(self, denoiser: nn.Module) -> dict[str, tuple[nn.Module, ...]]: ...
    def stage_modules(self, denoiser: nn.Module) -> dict[str, nn.Module]: ...
    def units(self, denoiser: nn.Module) -> tuple[Unit, ...]: ...
    def block_depth(self, denoiser: nn.Module, block: str) -> int: ...
    def build_student(self, teacher: nn.Module, kept: Sequence[str], removed: Sequence[str]) -> nn.Module: ...
    def skip_wiring(self, kept: Sequence[str]) -> tuple[tuple[str, str], ...]: ...
    def student_names(self, kept: Sequence[str], removed: Sequence[str]) -> dict[str, str]: ...
    def feature_pairs(self, kept: Sequence[str], removed: Sequence[str]) -> list[tuple[str, str]]: ...
    def sample(
        self, pipeline: DiffusionPipeline, requests: Sequence[ClipRequest], settings: SampleSettings
    ) -> NDArray[np.float32]: ...


if TYPE_CHECKING:
    from vdmini.models import animatediff, cogvideox, hunyuanvideo, ltx, mochi, svd, videocrafter, wan

    # The type checker holds each family's module to the protocol.
    _FAMILY_MODULES: tuple[Family, ...] = (svd, videocrafter, animatediff, hunyuanvideo, wan, cogvideox, ltx, mochi)


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


def load_model(
    source: str | Path,
    *,
    family: str | None = None,
    random_weights: bool = False,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | Literal["auto"] | None = None,
    download: bool = False,
) -> VideoModel:
    """Load a model: an embedded name, a diffusers folder, a hub id, or a published name with `random_weights`.

    A file is an original checkpoint, whose denoiser is read; `family` says which family's or published model's it is.
    Nothing is asked of the network, so a hub id must be in the local hub cache, unless `download` says to fetch it.
    Weights come from safetensors, or from readers that take tensors only: no code that a source brings is run. Those
    of a variant such as fp16 are read where a folder holds no others. With `random_weights` the published configuration
    is filled from torch's global generator. On the device "meta" a denoiser is built from its configuration alone, and
    there is no pipeline. `dtype` None means float32, "auto" that of each network's files. Raises ModelLoadError, which
    names weights that are missing, unknown or misshapen.
    """
    from vdmini.models import hub, sources

    name, chosen = str(source), None if dtype == "auto" else dtype
    if family is not None and not is_published(family):
        family_named(family)
    if random_weights:
        return sources.random_model(name, family, device, chosen)
    if is_published(name) and not Path(name).exists():
        raise ModelLoadError(
            f"{name!r} names a published model, not weights: give a folder or a hub id, or pass random_weights=True"
        )
    weightless = str(device) == "meta"
    if dtype is None and not weightless:
        import torch

        chosen = torch.float32
    if Path(name).is_file() and name not in EMBEDDED:
        return sources.original_checkpoint(name, family, device, chosen)
    folder = hub.source_folder(name, download=download, weights=not weightless)
    if weightless:
        model = sources.weightless_model(name, folder, chosen)
    elif (folder / "config.json").is_file() and not (folder / "model_index.json").is_file():
        model = sources.bare_denoiser(name, folder, device, chosen)
    else:
        model = sources.pipeline_model(name, folder, device, chosen)
    if family not in (None, model.family):
        raise ModelLoadError(
            f"{name!r} is a model of family {model.family!r}, not {family!r}: pass family={model.family!r}"
        )
    return model


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
