"""Which families and published models there are, and the family of a denoiser."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.metadata import entry_points
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from vdmini.blocks import Block, BlockGraph, ModelInput
from vdmini.errors import ModelLoadError, nearest
from vdmini.models.family import Family

if TYPE_CHECKING:
    from diffusers.pipelines.pipeline_utils import DiffusionPipeline
    from torch import nn

# The module of each family beside this one, which holds its `FAMILY`, and its published models: these can be built
# without their weights, and the family's name means the first.
FAMILIES: dict[str, tuple[str, tuple[str, ...]]] = {
    "svd": ("svd", ("svd", "svd-xt")),
    "videocrafter2": ("videocrafter", ("videocrafter2", "t2v-turbo-v2")),
    "animatediff": ("animatediff", ("animatediff", "animatediff-v3")),
    "hunyuanvideo": (
        "hunyuanvideo",
        ("hunyuanvideo", "hunyuanvideo-i2v", "hunyuanvideo-i2v-33ch", "skyreels-v1-t2v", "skyreels-v1-i2v"),
    ),
    "wan": ("wan", (
        "wan2.1-t2v-1.3b", "wan2.1-t2v-14b", "wan2.2-t2v-a14b", "wan2.1-i2v-14b-480p", "wan2.1-i2v-14b-720p",
        "wan2.2-i2v-a14b", "wan2.2-ti2v-5b",
    )),
    "cogvideox": (
        "cogvideox", ("cogvideox-2b", "cogvideox-5b", "cogvideox-5b-i2v", "cogvideox1.5-5b", "cogvideox1.5-5b-i2v"),
    ),
    "ltx": ("ltx", (
        "ltx-video-2b", "ltx-video-2b-0.9.1", "ltx-video-2b-0.9.5", "ltx-video-2b-0.9.6", "ltx-video-2b-0.9.8",
        "ltx-video-13b-0.9.7", "ltx-video-13b-0.9.8",
    )),
    "mochi": ("mochi", ("mochi-1-preview",)),
    "wan-vace": ("wan_vace", ("wan2.1-vace-1.3b", "wan2.1-vace-14b", "wan2.2-vace-fun-a14b")),
    "wan-animate": ("wan_animate", ("wan2.2-animate-14b",)),
    "skyreels-v2": ("skyreels_v2", (
        "skyreels-v2-t2v-14b-540p", "skyreels-v2-t2v-14b-720p", "skyreels-v2-i2v-1.3b-540p", "skyreels-v2-i2v-14b-540p",
        "skyreels-v2-i2v-14b-720p", "skyreels-v2-df-1.3b-540p", "skyreels-v2-df-14b-540p", "skyreels-v2-df-14b-720p",
    )),
    "chronoedit": ("chronoedit", ("chronoedit-14b",)),
    "anyflow": ("anyflow", ("anyflow-wan2.1-t2v-1.3b", "anyflow-wan2.1-t2v-14b")),
    "helios": ("helios", ("helios-base",)),
    "hunyuanvideo-1.5": (
        "hunyuanvideo15",
        (
            "hunyuanvideo-1.5-480p-t2v",
            "hunyuanvideo-1.5-480p-i2v",
            "hunyuanvideo-1.5-720p-t2v",
            "hunyuanvideo-1.5-720p-i2v",
            "hunyuanvideo-1.5-480p-i2v-step-distilled",
        ),
    ),
    "framepack": ("framepack", ("framepack-i2v-hy",)),
    "motif-video": ("motifvideo", ("motif-video-2b",)),
    "kandinsky5": (
        "kandinsky5",
        ("kandinsky5-t2v-lite", "kandinsky5-i2v-lite", "kandinsky5-t2v-pro", "kandinsky5-i2v-pro"),
    ),
    "kandinsky6": ("kandinsky6", ("kandinsky6-pro",)),
    "ltx2": ("ltx2", ("ltx-2", "ltx-2.3", "ltx-2.5")),
    "cosmos": (
        "cosmos", (
            "cosmos-1.0-7b-text2world", "cosmos-1.0-7b-video2world", "cosmos-1.0-14b-text2world",
            "cosmos-1.0-14b-video2world", "cosmos-predict2-2b-text2image", "cosmos-predict2-14b-text2image",
            "cosmos-predict2-2b-video2world", "cosmos-predict2-14b-video2world", "cosmos-predict2.5-2b",
            "cosmos-predict2.5-14b",
        ),
    ),
    "sana-video": ("sana_video", ("sana-video-2b-480p", "sana-video-2b-720p")),
    "easyanimate": ("easyanimate", ("easyanimate-v5.1-12b", "easyanimate-v5.1-12b-inp", "easyanimate-v5.1-7b-inp")),
    "allegro": ("allegro", ("allegro",)),
    "latte": ("latte", ("latte-1",)),
    "consisid": ("consisid", ("consisid-preview",)),
}  # fmt: skip
# diffusers' classes that stand where a video pipeline has its denoiser, or look like one, and why no family has them.
REFUSED = {
    "Cosmos3OmniTransformer": "its layers are those of a language model too, which reads the prompt in them",
    "SanaWMTransformer3DModel": "every block follows a camera's path, which no clip has here",
    "SanaWMLTX2RefinerTransformer3DModel": "it refines a clip that SANA-WM made, and makes none itself",
    "Flux3Transformer2DModel": "it makes images, not videos",
    "JoyImageEditTransformer3DModel": "it edits images, and makes no videos",
    "JoyImageEditPlusTransformer3DModel": "it edits images, and makes no videos",
    "UNet2DConditionModel": "it makes images, not videos: give the UNetMotionModel that AnimateDiff makes of it",
    "MotionAdapter": "it is a part of AnimateDiff's denoiser: give the UNetMotionModel that holds it",
    "UNet3DConditionModel": "diffusers has deprecated its pipelines, ModelScope's and Zeroscope's",
    "I2VGenXLUNet": "diffusers has deprecated its pipeline",
    "MiniMaxH3Transformer3DModel": "diffusers has it as modular blocks, with no pipeline to sample, save or load it by",
    "Kandinsky6SRTransformer3DModel": "it enlarges clips that another model has made, from no prompt and no image",
    "AnyFlowFARTransformer3DModel": (
        "it attends by FlexAttention, whose work cannot be counted on the meta device, and which trains compiled alone"
    ),
    "WanAnimate2Transformer3DModel": (
        "it leaves out the tenth block by its place in a pass without a prompt, whichever block that is, and diffusers"
        " has no pipeline of it that loads from a folder"
    ),
}
OFFICIAL = {name: family for family, (_, names) in FAMILIES.items() for name in names}
# The group of entry points by which other packages add a `Family` under its name.
PLUGINS = "vdmini.families"
# What pipelines call their denoisers; the last is of the later steps, where a pipeline has one for these.
DENOISERS = ("unet", "transformer", "transformer_2")
EMBEDDED = {f"embedded/{name}": Path(__file__).parents[1] / "weights" / name for name in ("svd", "t2v", "wan")}


@dataclass(frozen=True)
class Expert:
    """One of a pipeline's denoisers by the pipeline's name for it, and the noise's share in the levels it is for."""

    name: str
    denoiser: nn.Module
    lowest: float
    highest: float


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

    @property
    def experts(self) -> tuple[Expert, ...]:
        """The denoiser for all noise levels, or both where a pipeline has one on each side of its boundary."""
        found = {name: getattr(self.pipeline, name, None) for name in DENOISERS}
        named = {name: denoiser for name, denoiser in found.items() if denoiser is not None} or {"": self.denoiser}
        boundary = self.pipeline.config.get("boundary_ratio") if self.pipeline is not None else None
        ranges = pairwise((1.0, boundary or 0.0, 0.0) if len(named) > 1 else (1.0, 0.0))
        return tuple(
            Expert(name, denoiser, lowest, highest)
            for (name, denoiser), (highest, lowest) in zip(named.items(), ranges, strict=True)
        )


def is_published(name: str) -> bool:
    """Whether a name is a published model's or a family's, to be built without weights."""
    return name in OFFICIAL or name in FAMILIES


def published_name(name: str) -> str:
    """The published model that a name means, which is its own or its family's."""
    return name if name in OFFICIAL else FAMILIES[name][1][0]


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
    graph = BlockGraph(family=family.name, input=size, blocks=tuple(blocks), units=family.units(denoiser))
    if graph.params != count_parameters(denoiser):
        raise ValueError(
            f"blocks of {type(denoiser).__name__} hold {graph.params} weights of {count_parameters(denoiser)}"
        )
    return graph


def graph_of(model: VideoModel | nn.Module) -> BlockGraph:
    """The blocks of a loaded model or a bare denoiser, at the family's default input."""
    return model.blocks if isinstance(model, VideoModel) else block_graph(model)


def family_named(name: str) -> Family:
    """The family of a name; raises ModelLoadError for a name that is not registered."""
    if name in FAMILIES:
        family: Family = importlib.import_module(f"vdmini.models.{FAMILIES[name][0]}").FAMILY
        return family
    if name in plugged_families():
        return plugged_families()[name]
    raise ModelLoadError(f"unknown family {name!r}{nearest(name, FAMILIES)}: choose one of {', '.join(FAMILIES)}")


@cache
def plugged_families() -> dict[str, Family]:
    """Families of other packages, by the names of their entry points; raises ModelLoadError for one that is none."""
    found = {}
    for point in entry_points(group=PLUGINS):
        try:
            family = point.load()
        except Exception as error:
            raise ModelLoadError(f"the family {point.name!r} of {point.value} cannot be loaded: {error}") from error
        if getattr(family, "name", None) != point.name or point.name in FAMILIES:
            raise ModelLoadError(f"{point.value} is no Family of its own named {point.name!r}: give it that name")
        found[point.name] = family
    return found


def family_of(denoiser: nn.Module) -> Family:
    """The family a denoiser belongs to; raises ModelLoadError when no family knows its class."""
    # Theirs first: their classes may derive from those of ours.
    for family in (*plugged_families().values(), *map(family_named, FAMILIES)):
        if family.matches(denoiser):
            return family
    require_not_refused(type(denoiser).__name__)
    raise ModelLoadError(
        f"no family knows {type(denoiser).__name__}: give the denoiser itself, out of any wrapper, of a"
        f" model of one of the families {', '.join(FAMILIES)}"
    )


def require_not_refused(native: str) -> None:
    """Raise ModelLoadError, with the reason, for a class of diffusers that is known and not supported."""
    if native in REFUSED:
        raise ModelLoadError(f"a {native} is not supported: {REFUSED[native]}")


def replace_denoiser(pipeline: DiffusionPipeline, denoiser: nn.Module, name: str | None = None) -> None:
    """Put another denoiser in the place of a pipeline's own, the first one's where it has two and `name` is None.

    Raises ModelLoadError where it has none.
    """
    original = pipeline_denoiser(pipeline)
    first = "unet" if getattr(pipeline, "unet", None) is original else "transformer"
    setattr(pipeline, name or first, denoiser)


def pipeline_denoiser(pipeline: DiffusionPipeline) -> nn.Module:
    """A pipeline's UNet or transformer; raises ModelLoadError where it has neither."""
    denoiser: nn.Module | None = getattr(pipeline, "unet", None) or getattr(pipeline, "transformer", None)
    if denoiser is None:
        raise ModelLoadError(f"a {type(pipeline).__name__} has no denoiser: give a video pipeline")
    return denoiser
