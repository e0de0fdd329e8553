"""What the students of VAE decoders share: stages of their own widths and numbers of resnets, in the order they run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import nn

# The groups of SVD's normalisations, which its configuration does not say.
GROUPS = 32
# A stage of a decoder, by the student's settings, the stage's index, and its channels at the start and within.
Stage = Callable[[Mapping[str, Any], int, int, int], nn.Module]


def groups_of(config: Mapping[str, Any]) -> int:
    """How many groups every normalisation of the decoder has, which is also the step between widths."""
    return int(config.get("norm_num_groups", GROUPS))


def build_stages(config: Mapping[str, Any], stage: Stage) -> nn.ModuleList:
    """All stages of a student's decoder; raises ValueError where its widths or layers do not fit the teacher's."""
    widths: Sequence[int] = config["decoder_block_out_channels"]
    _check_shape(config, widths, config["decoder_layers_per_block"])
    return nn.ModuleList(
        stage(config, index, before, width)
        for index, (before, width) in enumerate(zip((widths[0], *widths), widths, strict=False))
    )


def upsamples(config: Mapping[str, Any], index: int) -> bool:
    """Whether a stage ends with twice the height and width: all but the last do."""
    return index < len(config["block_out_channels"]) - 1


def has_shortcut(config: Mapping[str, Any], index: int) -> bool:
    """Whether the teacher's stage starts with a 1x1 shortcut, whose weights the student must have a place for."""
    stages = tuple(reversed(config["block_out_channels"]))
    return index > 0 and stages[index - 1] != stages[index]


def _check_shape(config: Mapping[str, Any], widths: Sequence[int], layers: Sequence[int]) -> None:
    stages, step = tuple(reversed(config["block_out_channels"])), groups_of(config)
    most_layers = config["layers_per_block"] + 1
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
