"""Video diffusion models: where they load from, and what each family says about its blocks."""

from __future__ import annotations

import difflib
import importlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

from vdmini.blocks import Block, BlockGraph, ModelInput, Unit

if TYPE_CHECKING:
    import numpy as np
    import torch
    from diffusers.pipelines.pipeline_utils import DiffusionPipeline
    from numpy.typing import NDArray
    from torch import Tensor, nn

    from vdmini.sample import ClipRequest, SampleSettings

# One module a family; each implements `Family`.
FAMILIES = {
    "svd": "vdmini.models.svd",
}
# Published models that can be built without their weights, and the family of each.
OFFICIAL = {
    "svd": "svd",
    "svd-xt": "svd",
}
EMBEDDED = {
    "embedded/svd": Path(__file__).parents[1] / "weights" / "svd",
}


class ModelLoadError(RuntimeError):
    """A model that cannot be loaded; the message names the source and says what to do."""


class Family(Protocol):
    """What a family's module must say, so that planning, pruning and distilling need not know the family."""

    NAME: str
    TASK: str

    def matches(self, denoiser: nn.Module) -> bool: ...
    def build_official(self, name: str) -> tuple[nn.Module, nn.Module]: ...
    def denoiser_classes(self) -> dict[str, type[nn.Module]]: ...
    def default_input(self, denoiser: nn.Module) -> ModelInput: ...
    def example_inputs(self, denoiser: nn.Module, size: ModelInput) -> dict[str, Tensor]: ...
    def architecture(self, denoiser: nn.Module) -> dict[str, object]: ...
    def block_modules(self, denoiser: nn.Module) -> dict[str, tuple[nn.Module, ...]]: ...
    def stage_modules(self, denoiser: nn.Module) -> dict[str, nn.Module]: ...
    def units(self, denoiser: nn.Module) -> tuple[Unit, ...]: ...
    def stage_depth(self, denoiser: nn.Module, stage: str) -> int: ...
    def build_student(self, teacher: nn.Module, kept: Sequence[str], removed: Sequence[str]) -> nn.Module: ...
    def skip_wiring(self, kept: Sequence[str]) -> tuple[tuple[str, str], ...]: ...
    def student_names(self, kept: Sequence[str], removed: Sequence[str]) -> dict[str, str]: ...
    def feature_pairs(self, kept: Sequence[str], removed: Sequence[str]) -> list[tuple[str, str]]: ...
    def sample(
        self, pipeline: DiffusionPipeline, requests: Sequence[ClipRequest], settings: SampleSettings
    ) -> NDArray[np.float32]: ...


if TYPE_CHECKING:
    from vdmini.models import svd

    # The type checker holds each family's module to the protocol.
    _FAMILY_MODULES: tuple[Family, ...] = (svd,)


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
    dtype: torch.dtype | None = None,
) -> VideoModel:
    """Load a model: an embedded name, a diffusers folder, a hub id, or a family name with `random_weights`.

    Weights are read from safetensors only and no code that a source brings is run. With `random_weights` the family's
    official configuration is built from torch's global generator. On the device "meta" nothing but the configuration of a
    local folder's denoiser is read, and there is no pipeline. `dtype` None means float32. Raises ModelLoadError.
    """
    name = str(source)
    if family is not None:
        family_named(family)
    if random_weights:
        return _random_model(name, family, device, dtype)
    if name in OFFICIAL and not Path(name).exists():
        raise ModelLoadError(
            f"{name!r} names a published model, not weights: give a folder or a hub id, or pass random_weights=True"
        )
    if name in EMBEDDED and not EMBEDDED[name].is_dir():
        raise ModelLoadError(
            f"{name!r} is not part of this installation ({EMBEDDED[name]} is missing): install a build that has it"
        )
    folder = EMBEDDED.get(name, Path(name))
    if str(device) == "meta":
        model = _weightless_model(name, folder, dtype)
    elif (folder / "config.json").is_file() and not (folder / "model_index.json").is_file():
        model = _bare_denoiser(name, folder, device, dtype)
    else:
        model = _pipeline_model(name, folder, device, dtype)
    if family not in (None, model.family):
        raise ModelLoadError(
            f"{name!r} is a model of family {model.family!r}, not {family!r}: pass family={model.family!r}"
        )
    return model


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
                depth=family.stage_depth(denoiser, stage),
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
        raise ModelLoadError(f"unknown family {name!r}{_nearest(name, FAMILIES)}: choose one of {', '.join(FAMILIES)}")
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


def pipeline_denoiser(pipeline: DiffusionPipeline) -> nn.Module:
    """A pipeline's UNet or transformer; raises ModelLoadError where it has neither."""
    denoiser: nn.Module | None = getattr(pipeline, "unet", None) or getattr(pipeline, "transformer", None)
    if denoiser is None:
        raise ModelLoadError(f"a {type(pipeline).__name__} has no denoiser: give a video pipeline")
    return denoiser


def _random_model(name: str, family: str | None, device: str | torch.device, dtype: torch.dtype | None) -> VideoModel:
    import torch

    if name not in OFFICIAL:
        raise ModelLoadError(
            f"random_weights=True needs a published model's name, not {name!r}{_nearest(name, OFFICIAL)}:"
            f" use one of {', '.join(OFFICIAL)}"
        )
    if family not in (None, OFFICIAL[name]):
        raise ModelLoadError(f"source {name!r} and family {family!r} disagree: leave family out")
    with torch.device(device):
        denoiser, vae = family_named(OFFICIAL[name]).build_official(name)
    # Some layers make their tensors on the CPU whatever the default device is.
    denoiser, vae = denoiser.to(device).eval(), vae.to(device).eval()
    if dtype is not None:
        denoiser, vae = denoiser.to(dtype), vae.to(dtype)
    return VideoModel(source=name, family=OFFICIAL[name], denoiser=denoiser, vae=vae, pipeline=None)


def _weightless_model(name: str, folder: Path, dtype: torch.dtype | None) -> VideoModel:
    import torch

    places = [folder / part / "config.json" for part in ("unet", "transformer", ".")]
    found = [place for place in places if place.is_file()]
    if not found:
        raise ModelLoadError(f"{name!r} has no configuration of a denoiser: give a local folder, or {_known_names()}")
    try:
        config = json.loads(found[0].read_text(encoding="utf-8"))
        with torch.device("meta"):
            denoiser = _denoiser_classes()[config["_class_name"]].from_config(config)
    except Exception as error:  # whatever the file made json or diffusers raise, the source is at fault
        raise ModelLoadError(
            f"{found[0]} describes no denoiser of {', '.join(_denoiser_classes())} ({type(error).__name__}: {error}):"
            " give a folder that save_pretrained wrote"
        ) from error
    denoiser = denoiser.to(device="meta", dtype=dtype).eval()
    return VideoModel(source=name, family=family_of(denoiser).NAME, denoiser=denoiser, vae=None, pipeline=None)


def _denoiser_classes() -> dict[str, Any]:
    classes: dict[str, Any] = {}
    for family in FAMILIES:
        classes |= family_named(family).denoiser_classes()
    return classes


def _bare_denoiser(name: str, folder: Path, device: str | torch.device, dtype: torch.dtype | None) -> VideoModel:
    classes = _denoiser_classes()
    try:
        class_name = json.loads((folder / "config.json").read_text(encoding="utf-8"))["_class_name"]
        denoiser = classes[class_name].from_pretrained(folder, use_safetensors=True, dtype=dtype)
    except Exception as error:  # whatever the file made diffusers, safetensors or json raise, the source is at fault
        raise ModelLoadError(
            f"{name!r} holds no denoiser of {', '.join(classes)} ({type(error).__name__}: {error}):"
            " give a folder that save_pretrained wrote"
        ) from error
    denoiser = denoiser.to(device)
    return VideoModel(source=name, family=family_of(denoiser).NAME, denoiser=denoiser, vae=None, pipeline=None)


def _pipeline_model(name: str, folder: Path, device: str | torch.device, dtype: torch.dtype | None) -> VideoModel:
    from diffusers.pipelines.pipeline_utils import DiffusionPipeline

    if folder.exists() and not (folder / "model_index.json").is_file():
        raise ModelLoadError(f"{name!r} has no model_index.json: give the folder that a pipeline was saved to")
    location = str(folder) if folder.exists() else name
    try:
        pipeline = DiffusionPipeline.from_pretrained(
            location, use_safetensors=True, trust_remote_code=False, dtype=dtype
        )
    except Exception as error:  # files, network and hub raise unrelated types; each means that the source did not load
        raise ModelLoadError(
            f"cannot load {name!r} ({type(error).__name__}: {error}): check that it is an existing folder or a hub"
            f" id with safetensors weights; offline, download it first with `hf download {name}`;"
            f" known names: {_known_names()}"
        ) from error
    denoiser = pipeline_denoiser(pipeline)
    family = family_of(denoiser)
    pipeline.to(device)
    return VideoModel(name, family.NAME, denoiser, getattr(pipeline, "vae", None), pipeline)


def _known_names() -> str:
    return ", ".join([*EMBEDDED, *(f"{name} (with random_weights=True)" for name in OFFICIAL)])


def _nearest(name: str, known: Iterable[str]) -> str:
    matches = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean {matches[0]!r}?)" if matches else ""
