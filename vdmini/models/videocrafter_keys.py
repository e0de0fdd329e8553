"""The names of VideoCrafter2's original checkpoints, and the names of the same weights in `VideoCrafterUNet`.

The original numbers its blocks through: `input_blocks` holds the first convolution, the pairs of each down stage and
the downsampler after them; `output_blocks` the pairs of each up stage, the last of which also holds the upsampler. A
pruned checkpoint keeps the numbers of the blocks it keeps.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vdmini.errors import ModelLoadError

# What `VideoCrafterUNet` builds; a checkpoint made with other options is another network.
REQUIRED_OPTIONS: dict[str, Any] = {
    "transformer_depth": 1,
    "use_linear": True,
    "temporal_conv": True,
    "temporal_attention": True,
    "temporal_selfatt_only": True,
    "use_relative_position": False,
    "use_causal_attention": False,
    "addition_attention": True,
    "fps_cond": True,
}
# The first temporal attention always has this many heads.
INPUT_HEADS = 8
# 1x1 convolutions over time in the original, linear layers here.
POINTWISE_CONVOLUTIONS = ("init_attn.0.proj_in.weight", "init_attn.0.proj_out.weight")

_RESNET = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
}
_OUTSIDE_BLOCKS = {
    "input_blocks.0.0": "conv_in",
    "init_attn.0": "transformer_in",
    "time_embed.0": "time_embedding.linear_1",
    "time_embed.2": "time_embedding.linear_2",
    "fps_embedding.0": "fps_embedding.linear_1",
    "fps_embedding.2": "fps_embedding.linear_2",
    "time_cond_proj": "time_cond_proj",
    "motion_cond_proj": "motion_cond_proj",
    "combine_proj": "combine_proj",
    "out.0": "conv_norm_out",
    "out.2": "conv_out",
}


@dataclass(frozen=True)
class OriginalLayout:
    """How many pairs each down stage has, which stages attend, and the number of each block in the original's lists."""

    layers: tuple[int, ...]
    down_attends: tuple[bool, ...]
    up_attends: tuple[bool, ...]
    mid: bool
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


def input_names(layers: Sequence[int]) -> list[str]:
    """The blocks that `input_blocks` lists, for down stages of so many pairs: conv_in, D.0.0, ..., D.0.downsample."""
    names = ["conv_in"]
    for stage, pairs in enumerate(layers):
        names += [f"D.{stage}.{pair}" for pair in range(pairs)]
        names += [f"D.{stage}.downsample"] if stage < len(layers) - 1 else []
    return names


def output_names(layers: Sequence[int]) -> list[str]:
    """The blocks that `output_blocks` lists, for down stages of so many pairs: U.0.0, U.0.1, ..."""
    return [f"U.{stage}.{pair}" for stage, pairs in enumerate(reversed(layers)) for pair in range(pairs + 1)]


def layout_of(keys: Mapping[str, object]) -> OriginalLayout:
    """The layout of a checkpoint, whole or pruned, from its names alone.

    Raises ModelLoadError when they are not those of a UNet that can be wired.
    """
    inputs, outputs = _numbers(keys, "input_blocks"), _numbers(keys, "output_blocks")
    if inputs[:1] != (0,) or not outputs:
        raise ModelLoadError("the checkpoint lacks input_blocks.0 or every output block: it is no VideoCrafter2 UNet")
    down: list[list[int]] = [[]]
    for number in inputs[1:]:
        if f"input_blocks.{number}.0.op.weight" in keys:
            down.append([])
        else:
            down[-1].append(number)
    up: list[list[int]] = [[]]
    for number in outputs:
        up[-1].append(number)
        if any(f"output_blocks.{number}.{place}.conv.weight" in keys for place in (1, 3)):
            up.append([])
    layers = tuple(len(numbers) for numbers in down)
    if [len(numbers) for numbers in up] != [pairs + 1 for pairs in reversed(layers)] or 0 in layers:
        raise ModelLoadError(
            f"the checkpoint's stages have {layers} pairs down and {tuple(map(len, up))} up: each up stage needs one"
            " more than the down stage of its resolution, so blocks are missing"
        )
    return OriginalLayout(
        layers=layers,
        down_attends=tuple(f"input_blocks.{numbers[0]}.1.norm.weight" in keys for numbers in down),
        up_attends=tuple(f"output_blocks.{numbers[0]}.1.norm.weight" in keys for numbers in up),
        mid=any(key.startswith("middle_block.") for key in keys),
        inputs=inputs,
        outputs=outputs,
    )


def module_names(layout: OriginalLayout) -> dict[str, str]:
    """The name of each module in the original and its name in `VideoCrafterUNet`, one to one."""
    names = dict(_OUTSIDE_BLOCKS)
    numbers = dict(zip(input_names(layout.layers), layout.inputs, strict=True))
    numbers |= dict(zip(output_names(layout.layers), layout.outputs, strict=True))
    for block, number in numbers.items():
        if block == "conv_in":
            continue
        side, stage, part = block.split(".")
        native = f"{'down' if side == 'D' else 'up'}_blocks.{stage}"
        original = f"{'input' if side == 'D' else 'output'}_blocks.{number}"
        if part == "downsample":
            names[f"{original}.0.op"] = f"{native}.downsamplers.0.conv"
            continue
        attends = (layout.down_attends if side == "D" else layout.up_attends)[int(stage)]
        names |= _resnet_names(f"{original}.0", native, part)
        names |= _attention_names(original, native, part) if attends else {}
        last_of_stage = int(part) == layout.layers[-1 - int(stage)] if side == "U" else False
        if last_of_stage and int(stage) < len(layout.layers) - 1:
            names[f"{original}.{3 if attends else 1}.conv"] = f"{native}.upsamplers.0.conv"
    if layout.mid:
        names |= _resnet_names("middle_block.0", "mid_block", "0") | _attention_names("middle_block", "mid_block", "0")
        names |= _resnet_names("middle_block.3", "mid_block", "1")
    return names


def renamed(key: str, names: Mapping[str, str]) -> str:
    """A weight's key with the name of its module replaced; that of an unknown module stays as it is."""
    parts = key.split(".")
    for end in range(len(parts), 0, -1):
        module = ".".join(parts[:end])
        if module in names:
            return ".".join([names[module], *parts[end:]])
    return key


def network_config(shapes: Mapping[str, Sequence[int]], options: Mapping[str, Any]) -> dict[str, Any]:
    """Constructor arguments of `VideoCrafterUNet` for a checkpoint of these names and shapes.

    `options` are the original's own, where they are known: they are checked against the shapes. Raises ModelLoadError
    when they contradict each other or ask for another network.
    """
    layout = layout_of(shapes)
    pairs = dict(zip(input_names(layout.layers), layout.inputs, strict=True))
    widths = [
        _shape(shapes, f"input_blocks.{pairs[f'D.{stage}.0']}.0.out_layers.3.weight")[0]
        for stage in range(len(layout.layers))
    ]
    attending = [key for key in shapes if key.endswith(".1.transformer_blocks.0.attn2.to_k.weight")]
    first = _shape(shapes, "input_blocks.0.0.weight")
    found = {
        "in_channels": first[1],
        "model_channels": first[0],
        "out_channels": _shape(shapes, "out.2.weight")[0],
        "num_head_channels": _shape(shapes, "init_attn.0.proj_in.weight")[0] // INPUT_HEADS,
        "context_dim": _shape(shapes, attending[0])[1] if attending else None,
        "time_cond_proj_dim": shapes["time_cond_proj.weight"][1] if "time_cond_proj.weight" in shapes else None,
        "motion_cond_proj_dim": shapes["motion_cond_proj.weight"][1] if "motion_cond_proj.weight" in shapes else None,
    }
    for name, value in (REQUIRED_OPTIONS | found).items():
        if options.get(name, value) != value:
            raise ModelLoadError(
                f"option {name} is {options[name]!r} but must be {value!r} for this checkpoint: correct the config"
            )
    if widths[0] != first[0] or found["context_dim"] is None:
        raise ModelLoadError("the checkpoint's first stage must be as wide as its input, and attend to a text")
    whole = all(numbers == tuple(range(len(numbers))) for numbers in (layout.inputs, layout.outputs))
    return {
        "in_channels": found["in_channels"],
        "out_channels": found["out_channels"],
        "down_block_types": [f"{'CrossAttn' * attends}DownBlock3D" for attends in layout.down_attends],
        "up_block_types": [f"{'CrossAttn' * attends}UpBlock3D" for attends in layout.up_attends],
        "block_out_channels": widths,
        "layers_per_block": list(layout.layers),
        "cross_attention_dim": found["context_dim"],
        "attention_head_dim": found["num_head_channels"],
        "num_frames": options.get("temporal_length", 16),
        "time_cond_dim": found["time_cond_proj_dim"],
        "motion_cond_dim": found["motion_cond_proj_dim"],
        "mid_block_type": "UNetMidBlock3DCrossAttn" if layout.mid else None,
        "original_blocks": None if whole else [list(layout.inputs), list(layout.outputs)],
    }


def _numbers(keys: Mapping[str, object], container: str) -> tuple[int, ...]:
    matches = (re.match(rf"{container}\.([0-9]+)\.", key) for key in keys)
    return tuple(sorted({int(match[1]) for match in matches if match}))


def _resnet_names(original: str, native: str, index: str) -> dict[str, str]:
    names = {f"{original}.{theirs}": f"{native}.resnets.{index}.{ours}" for theirs, ours in _RESNET.items()}
    # The misspelling is the original's.
    return names | {f"{original}.temopral_conv": f"{native}.temp_convs.{index}"}


def _attention_names(original: str, native: str, index: str) -> dict[str, str]:
    return {
        f"{original}.1": f"{native}.attentions.{index}",
        f"{original}.2": f"{native}.temp_attentions.{index}",
    }


def _shape(shapes: Mapping[str, Sequence[int]], key: str) -> Sequence[int]:
    if key not in shapes:
        raise ModelLoadError(f"the checkpoint lacks {key!r}: give the whole state dict of a VideoCrafter2 UNet")
    return shapes[key]
