"""What video UNets share: how blocks are named, which skips they exchange and which removals fit together.

`D.i` are the down stages and `U.k` the up stages in the order they run, so U.k works at the resolution of
D.(stages - 1 - k); `D.i.j` is the j-th pair of residual and attention block, `D.i.downsample` and `U.k.upsample` the
samplers, `Mid` the whole middle block.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vdmini.blocks import Unit, prunable_names
from vdmini.errors import PlanError
from vdmini.models.family import Family, require_multiple

if TYPE_CHECKING:
    from torch import nn

# Heads have 64 channels each.
WIDTH_STEP = 64
# It knows single frames.
STABLE_DIFFUSION_VAE: dict[str, Any] = {
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
    "sample_size": 512,
}
_BLOCK_NAME = re.compile(r"Mid|D\.[0-9]+\.([0-9]+|downsample)|U\.[0-9]+\.([0-9]+|upsample)")


@dataclass(frozen=True)
class UNetLayout:
    """The shape of a pruned UNet: pairs in each down stage that is left, and whether a middle block is."""

    teacher_stages: int
    layers: tuple[int, ...]
    mid: bool

    @property
    def dropped_stages(self) -> int:
        """How many of the lowest resolutions are gone."""
        return self.teacher_stages - len(self.layers)


def student_layout(kept: Sequence[str], removed: Sequence[str]) -> UNetLayout:
    """The layout that is left of a UNet; raises PlanError when the kept blocks cannot be wired into a UNet.

    A resolution is kept or dropped on both sides, only the lowest ones can be dropped, and each up stage reads one skip
    more than its down stage has pairs.
    """
    for name in (*kept, *removed):
        if not _BLOCK_NAME.fullmatch(name):
            raise PlanError(f"{name!r} is no block of a UNet: blocks are called D.0.1, D.0.downsample, Mid, U.1.2, ...")
    down_stages = [int(name.split(".")[1]) for name in (*kept, *removed) if name.startswith("D.")]
    teacher_stages = 1 + max(down_stages, default=-1)
    layers = [len(pairs_in(kept, f"D.{stage}")) for stage in range(teacher_stages)]
    stages = next((stage for stage, pairs in enumerate(layers) if not pairs), teacher_stages)
    if not stages:
        raise PlanError("the plan removes every pair of D.0: keep at least one")
    for stage in range(teacher_stages):
        up = f"U.{teacher_stages - 1 - stage}"
        wanted = layers[stage] + 1 if stage < stages else 0
        if stage >= stages and layers[stage]:
            raise PlanError(f"D.{stage} is kept below D.{stages}, which loses every pair: remove D.{stage} too")
        found = len(pairs_in(kept, up))
        if found != wanted:
            raise PlanError(
                f"{up} keeps {found} pairs but has {wanted} skips to read from D.{stage} and above it:"
                f" keep {wanted} pairs of {up}"
            )
        _check_sampler(f"D.{stage}.downsample", stage < stages - 1, kept)
        _check_sampler(f"{up}.upsample", 0 < stage < stages, kept)
    return UNetLayout(teacher_stages, tuple(layers[:stages]), "Mid" in kept)


def settings_of(parent: type[Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """Those of a student's settings that its parent's constructor takes."""
    return {name: config[name] for name in inspect.signature(parent).parameters}


class UNetFamily(Family):
    """What follows from a UNet's classes and the modules of its pairs, which have diffusers' names.

    `pair_parts` are the lists of a stage that hold one module of each pair, in the order they run.
    """

    classes: tuple[type[Any], ...]
    pair_parts: tuple[str, ...]
    convolves_frames = True

    def matches(self, denoiser: nn.Module) -> bool:
        return isinstance(denoiser, self.classes)

    def denoiser_classes(self) -> dict[str, type[nn.Module]]:
        return {each.__name__: each for each in self.classes}

    def latent_compression(self, vae: Any) -> tuple[int, int]:
        """The VAEs know single frames, and halve them between any two of their widths."""
        return 1, 2 ** (len(vae.config.block_out_channels) - 1)

    def width(self, denoiser: nn.Module) -> int:
        config: Any = denoiser.config
        return config.block_out_channels[0]

    def narrowed(self, denoiser: nn.Module, width: int) -> dict[str, Any]:
        require_multiple(width, WIDTH_STEP)
        return {"block_out_channels": tuple(width * times for times in (1, 2, 4, 4))}

    def entry(self, denoiser: nn.Module) -> dict[str, tuple[nn.Module, ...]]:
        """The blocks that run before the stages."""
        net: Any = denoiser
        return {"embeddings": (net.time_embedding,), "conv_in": (net.conv_in,)}

    def block_modules(self, denoiser: nn.Module) -> dict[str, tuple[nn.Module, ...]]:
        net: Any = denoiser
        blocks = self.entry(denoiser)
        for name, stage in self.stage_modules(denoiser).items():
            blocks |= {"Mid": (stage,)} if name == "Mid" else _stage_blocks(name, stage, self.pair_parts)
        return blocks | {"conv_out": (net.conv_norm_out, net.conv_out)}

    def stage_modules(self, denoiser: nn.Module) -> dict[str, nn.Module]:
        net: Any = denoiser
        stages = {f"D.{index}": stage for index, stage in enumerate(net.down_blocks)}
        if net.mid_block is not None:
            stages["Mid"] = net.mid_block
        return stages | {f"U.{index}": stage for index, stage in enumerate(net.up_blocks)}

    def units(self, denoiser: nn.Module) -> tuple[Unit, ...]:
        config: Any = denoiser.config
        prunable = prunable_names(self.block_modules(denoiser), self.stage_modules(denoiser))
        return _units(prunable, config.block_out_channels)

    def block_depth(self, denoiser: nn.Module, block: str) -> int:
        """0 at the input and output, the number of resolutions for the middle block."""
        net: Any = denoiser
        stages = len(net.down_blocks)
        side, *place = block.split(".")
        if side == "Mid":
            return stages
        if side in ("D", "U"):
            return int(place[0]) if side == "D" else stages - 1 - int(place[0])
        return 0

    def skip_wiring(self, kept: Sequence[str]) -> tuple[tuple[str, str], ...]:
        """Up pairs read what the first convolution and the down blocks wrote, the last written first."""
        written = ["conv_in", *(name for name in kept if name.startswith("D."))]
        readers = [name for name in kept if name.startswith("U.") and not name.endswith(".upsample")]
        if len(readers) != len(written):
            raise PlanError(
                f"{len(written)} skips are written but {len(readers)} are read: remove as many D as U pairs"
            )
        return tuple(zip(readers, reversed(written), strict=True))

    def student_names(self, kept: Sequence[str], removed: Sequence[str]) -> dict[str, str]:
        """Stages and pairs are numbered from 0 again."""
        dropped = student_layout(kept, removed).dropped_stages
        names: dict[str, str] = {}
        next_pair: dict[str, int] = {}
        for name in kept:
            side, _, rest = name.partition(".")
            if not rest:
                names[name] = name
                continue
            index, unit = rest.split(".")
            stage = f"{side}.{int(index) - dropped}" if side == "U" else f"{side}.{index}"
            if unit.isdigit():
                unit = str(next_pair.get(stage, 0))
                next_pair[stage] = int(unit) + 1
            names[name] = f"{stage}.{unit}"
        return names

    def feature_pairs(self, kept: Sequence[str], removed: Sequence[str]) -> list[tuple[str, str]]:
        """Stages of the same resolution.

        Where the teacher's stage goes on to a downsampler that the student lacks, its last kept pair is named instead.
        """
        layout = student_layout(kept, removed)
        pairs = []
        for stage in range(len(layout.layers)):
            whole = f"D.{stage}.downsample" not in removed
            pairs.append((f"D.{stage}", f"D.{stage}" if whole else pairs_in(kept, f"D.{stage}")[-1]))
        if layout.mid:
            pairs.append(("Mid", "Mid"))
        pairs += [(f"U.{stage}", f"U.{stage + layout.dropped_stages}") for stage in range(len(layout.layers))]
        return pairs


def _units(prunable: Sequence[str], widths: Sequence[int]) -> tuple[Unit, ...]:
    """What can leave a UNet of these blocks, whose resolutions have `widths` channels, and still fit together.

    All pairs of a down stage but the first, each with the up pair that reads its skip; the middle block; and the lowest
    resolution, where it is as wide as the one above, after its other pairs.
    """
    found = [Unit("Mid", ("Mid",))] if "Mid" in prunable else []
    stages = len(widths)
    lower: tuple[str, ...] = ()
    droppable = True
    for stage in reversed(range(stages)):
        up, pairs = f"U.{stages - 1 - stage}", len(pairs_in(prunable, f"D.{stage}"))
        inner = [
            Unit(f"D.{stage}.{pair}+{up}.{pair}", (f"D.{stage}.{pair}", f"{up}.{pair}")) for pair in range(1, pairs)
        ]
        found += inner
        droppable = droppable and stage > 0 and widths[stage] == widths[stage - 1]
        if droppable:
            blocks = (f"D.{stage - 1}.downsample", f"D.{stage}.0", f"{up}.0", f"{up}.{pairs}", f"{up}.upsample")
            found.append(Unit(f"D.{stage}+{up}", blocks, (*(unit.name for unit in inner), *lower)))
            lower = (f"D.{stage}+{up}",)
    return tuple(found)


def _stage_blocks(name: str, stage: nn.Module, parts: Sequence[str]) -> dict[str, tuple[nn.Module, ...]]:
    """The submodules of each block of a stage: its pairs, from those lists `parts` that it has, and its samplers."""
    lists = [getattr(stage, part) for part in parts if hasattr(stage, part)]
    blocks = {f"{name}.{index}": modules for index, modules in enumerate(zip(*lists, strict=True))}
    for sampler in ("downsample", "upsample"):
        if getattr(stage, f"{sampler}rs", None):
            blocks[f"{name}.{sampler}"] = tuple(getattr(stage, f"{sampler}rs"))
    return blocks


def pairs_in(names: Sequence[str], stage: str) -> list[str]:
    """The names of the pairs of a stage among names of blocks, in the order given."""
    return [name for name in names if name.startswith(f"{stage}.") and name.split(".")[-1].isdigit()]


def _check_sampler(name: str, wanted: bool, kept: Sequence[str]) -> None:
    if wanted and name not in kept:
        raise PlanError(f"{name} is removed but leads to a resolution that is kept: keep it")
    if not wanted and name in kept:
        raise PlanError(f"{name} is kept but leads to no resolution that is kept: remove it")
