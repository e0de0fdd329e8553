"""What the students of VAE decoders share: stages of their own widths and numbers of resnets, in the order they run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

# A stage of diffusers' own: of a VAE's settings, the channels before and within, resnets, and whether it upsamples.
Stage = Callable[[Mapping[str, Any], int, int, int, bool], nn.Module]


def groups_of(config: Mapping[str, Any]) -> int:
    """How many groups all normalisations of a decoder have, 32 where its settings say nothing: a step of its widths."""
    return int(config.get("norm_num_groups", 32))


def build_stage(config: Mapping[str, Any], stage: Stage, index: int, before: int, width: int) -> nn.Module:
    """A student's stage that starts with `before` channels; it has a shortcut wherever the teacher's has one."""
    teacher = tuple(reversed(config["block_out_channels"]))
    layers, upsamples = config["decoder_layers_per_block"][index], index < len(teacher) - 1
    block: Any = stage(config, before, width, layers, upsamples)
    if before == width and index and teacher[index - 1] != teacher[index]:
        # Stock blocks drop the shortcut where both widths agree, but the teacher's is a layer with weights.
        first = block.resnets[0]
        getattr(first, "spatial_res_block", first).conv_shortcut = nn.Conv2d(width, width, 1)
    return block


def build_stages(config: Mapping[str, Any], stage: Stage) -> nn.ModuleList:
    """All stages of a student's decoder; raises ValueError where its widths or layers do not fit the teacher's."""
    stages, step = tuple(reversed(config["block_out_channels"])), groups_of(config)
    widths, layers, most_layers = (
        config["decoder_block_out_channels"], config["decoder_layers_per_block"], config["layers_per_block"] + 1
    )  # fmt: skip
    if len(widths) != len(stages) or len(layers) != len(stages):
        raise ValueError(
            f"the decoder has {len(stages)} stages, got {len(widths)} widths and {len(layers)} layers: give one a stage"
        )
    for index, (width, most) in enumerate(zip(widths, stages, strict=True)):
        if not 0 < width <= most or width % step:
            raise ValueError(f"stage {index} cannot be {width} wide: use a multiple of {step} up to {most}")
    for index, count in enumerate(layers):
        if not 1 <= count <= most_layers:
            raise ValueError(f"stage {index} cannot have {count} resnets: use 1 to {most_layers}")
    before = (widths[0], *widths)
    return nn.ModuleList(build_stage(config, stage, index, before[index], width) for index, width in enumerate(widths))
