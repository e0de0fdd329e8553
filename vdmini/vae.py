"""A smaller VAE decoder: no middle block, fewer layers and fewer channels than the decoder it is cut from."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.autoencoders.autoencoder_kl_temporal_decoder import (
    AutoencoderKLTemporalDecoder,
    TemporalDecoder,
)
from torch import Tensor, nn

from vdmini.cost import count_flops, count_parameters
from vdmini.models.decoder import Stage, build_stage, groups_of
from vdmini.models.image_vae import VDMiniAutoencoderKL, frame_stage
from vdmini.models.svd_vae import VDMiniAutoencoderKLTemporalDecoder, temporal_stage

Student = VDMiniAutoencoderKLTemporalDecoder | VDMiniAutoencoderKL
# A teacher's class with its student's, and what builds a stage of their decoders.
STUDENTS: dict[type, tuple[type[Student], Stage]] = {
    AutoencoderKLTemporalDecoder: (VDMiniAutoencoderKLTemporalDecoder, temporal_stage),
    AutoencoderKL: (VDMiniAutoencoderKL, frame_stage),
}
# A target is met by widths this near to it: steps of 32 channels seldom come nearer.
TOLERANCE = 0.0025


def prune_decoder(
    vae: nn.Module,
    *,
    parameters: int | None = None,
    widths: Sequence[int] | None = None,
    layers: Sequence[int] | None = None,
    mid_block: bool = False,
) -> Student:
    """The student of SVD's VAE or of a frame-wise one: its encoder, and its decoder with fewer layers and channels.

    `widths` (each a multiple of the groups of its normalisations, 32) and `layers` are the channels and resnets of each
    stage in the order they run; by default no channel goes, and of the resnets all but the first of the last stage
    stay. `parameters` instead of `widths` asks for a decoder of that many weights: of all widths that never grow from
    stage to stage and come within 0.25 % of it, those with the fewest FLOPs. Weights are inherited: of each channel
    group that layers share, the channels whose weights have the largest L2 norm are kept, the same number in every
    group of the teacher's GroupNorms. The teacher is not changed and may be on the meta device; dtype, device and mode
    are inherited. Raises TypeError for any other VAE, ValueError for sizes that do not fit.

    Source: the decoder of VDMini-I2V (Wu et al., arXiv 2411.18375): 39.17 M of 63.58 M weights left, no middle block.
    """
    teacher: Any = vae
    if type(vae) not in STUDENTS:
        raise TypeError(
            f"the decoder of {type(vae).__name__} cannot be pruned: only those of a whole"
            f" {' or '.join(each.__name__ for each in STUDENTS)} have a student class, whose channel groups are known"
        )
    if parameters is not None and widths is not None:
        raise ValueError("give parameters or widths, not both: widths decide the number of parameters")
    config = {name: value for name, value in teacher.config.items() if not name.startswith("_")}
    stages = tuple(reversed(config["block_out_channels"]))
    whole = config["layers_per_block"] + 1
    config["decoder_layers_per_block"] = [*(layers or (*(whole,) * (len(stages) - 1), 1))]
    config["decoder_block_out_channels"] = [*(widths or stages)]
    config["decoder_mid_block"] = mid_block
    if parameters is not None:
        config["decoder_block_out_channels"] = [*_widths_for(type(vae), config, parameters)]
    student = _on_meta(type(vae), config)
    for name, part in student.named_children():
        weights = _inherited(teacher.decoder, part) if name == "decoder" else _copied(getattr(teacher, name))
        part.load_state_dict(weights, assign=True)
    return student.train(teacher.training)


def decoder_flops(vae: nn.Module, frames: int, height: int, width: int) -> int:
    """FLOPs of decoding so many frames of `height` x `width` latents, 1 MAC = 2 FLOP, by a VAE of `STUDENTS`."""
    decoder: Any = vae.decoder
    inputs: dict[str, object] = {"sample": torch.empty(frames, decoder.conv_in.in_channels, height, width)}
    if isinstance(decoder, TemporalDecoder):
        inputs |= {"image_only_indicator": torch.zeros(1, frames), "num_frames": frames}
    return count_flops(decoder, inputs)


def _on_meta(teacher: type, config: Mapping[str, Any]) -> Student:
    with torch.device("meta"):
        student = STUDENTS[teacher][0](**config)
    # Some layers make their tensors on the CPU whatever the default device is.
    return student.to("meta")


def _widths_for(teacher: type, config: Mapping[str, Any], parameters: int) -> tuple[int, ...]:
    """The widths with the fewest FLOPs of those whose decoder has about as many weights as asked for."""
    counts = _decoder_sizes(teacher, config)
    near = [widths for widths, count in counts.items() if abs(count - parameters) <= TOLERANCE * parameters]
    if not near:
        nearest = min(counts, key=lambda widths: abs(counts[widths] - parameters))
        raise ValueError(
            f"no widths give a decoder of {parameters} parameters within {TOLERANCE:.2%}: the nearest are"
            f" {list(nearest)} with {counts[nearest]}, ask for that many or give widths"
        )
    return min(near, key=lambda widths: decoder_flops(_with_widths(teacher, config, widths), 1, 8, 8))


def _decoder_sizes(teacher: type, config: Mapping[str, Any]) -> dict[tuple[int, ...], int]:
    """Number of weights of the decoder by its widths, for all that never grow from one stage to the next."""
    stages, step = tuple(reversed(config["block_out_channels"])), groups_of(config)

    @cache
    def stage_size(index: int, before: int, width: int) -> int:
        with torch.device("meta"):
            return count_parameters(build_stage(config, STUDENTS[teacher][1], index, before, width))

    sizes = {}
    # What is not part of a stage depends on the first and the last width alone.
    outside: dict[tuple[int, int], int] = {}
    for widths in itertools.product(*(range(step, most + 1, step) for most in stages)):
        if any(before < after for before, after in itertools.pairwise(widths)):
            continue
        before = (widths[0], *widths)
        inside = sum(stage_size(index, before[index], width) for index, width in enumerate(widths))
        ends = widths[0], widths[-1]
        if ends not in outside:
            outside[ends] = count_parameters(_with_widths(teacher, config, widths).decoder) - inside
        sizes[widths] = inside + outside[ends]
    return sizes


def _with_widths(teacher: type, config: Mapping[str, Any], widths: Sequence[int]) -> Student:
    return _on_meta(teacher, {**config, "decoder_block_out_channels": widths})


def _copied(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def _inherited(teacher: Any, student: nn.Module) -> dict[str, Tensor]:
    """The student's weights: those of the teacher's layers, without the pruned channels of each group."""
    weights = teacher.state_dict()
    groups = _channel_groups(teacher)
    scores = _channel_scores(weights, groups)
    inherited = {}

    def kept(group: str, width: int) -> Tensor:
        return _kept(scores[group], width, teacher.conv_norm_out.num_groups)

    for name, wanted in student.state_dict().items():
        layer = name.rpartition(".")[0]
        ends = groups.get(layer, ())
        read = [kept(group, wanted.shape[dim]) for dim, group in enumerate(ends[: wanted.ndim]) if group]
        if name not in weights:
            # The teacher passes these channels on as they are, so the student's shortcut starts as their selection.
            selection = read[0][:, None] == read[-1] if wanted.ndim > 1 else torch.zeros_like(read[0])
            inherited[name] = selection.to(weights["conv_in.weight"].dtype).reshape(wanted.shape)
            continue
        weight = weights[name]
        for dim, group in enumerate(ends[: weight.ndim]):
            if group:
                weight = weight.index_select(dim, kept(group, wanted.shape[dim]))
        inherited[name] = weight.clone()
    return inherited


def _channel_scores(weights: Mapping[str, Tensor], groups: Mapping[str, tuple[str, ...]]) -> dict[str, Tensor]:
    """Squared L2 norm of every weight that writes or reads a channel, by group: float32 of the group's width."""
    scores: dict[str, Tensor] = {}
    for layer, ends in groups.items():
        weight = weights.get(f"{layer}.weight")
        if weight is None or weight.ndim == 1:
            continue
        for dim, group in enumerate(ends):
            if group:
                energy = weight.float().square().transpose(0, dim).flatten(1).sum(dim=1)
                scores[group] = scores[group] + energy if group in scores else energy
    return scores


def _kept(scores: Tensor, width: int, groups: int) -> Tensor:
    """Indices of the channels to keep, in order; a smaller width keeps a subset of what a larger one keeps."""
    # A GroupNorm of the student then normalises channels that the teacher normalises together.
    ranked = scores.unflatten(0, (groups, -1)).argsort(dim=1, descending=True, stable=True)
    kept = ranked[:, : width // groups].sort(dim=1).values
    return (kept + torch.arange(groups, device=kept.device)[:, None] * ranked.shape[1]).flatten()


def _channel_groups(decoder: nn.Module) -> dict[str, tuple[str, ...]]:
    """The groups of channels that each layer of a teacher's decoder writes and reads, "" for those that all stay.

    Layers that a residual connection joins share a group: it is named after the first module that writes it.
    """
    net: Any = decoder
    stream = "conv_in"
    groups: dict[str, tuple[str, ...]] = {"conv_in": (stream, "")}
    for index, resnet in enumerate(net.mid_block.resnets):
        groups |= _resnet_groups(f"mid_block.resnets.{index}", resnet, stream, stream)
    for index, attention in enumerate(net.mid_block.attentions):
        # A VAE without attention has None in its place.
        groups |= _attention_groups(f"mid_block.attentions.{index}", stream) if attention is not None else {}
    for stage, block in enumerate(net.up_blocks):
        for index, resnet in enumerate(block.resnets):
            name = f"up_blocks.{stage}.resnets.{index}"
            after = stream if getattr(resnet, "spatial_res_block", resnet).conv_shortcut is None else name
            groups |= _resnet_groups(name, resnet, stream, after)
            stream = after
        if block.upsamplers is not None:
            name = f"up_blocks.{stage}.upsamplers.0.conv"
            groups[name] = (name, stream)
            stream = name
    return groups | {"conv_norm_out": (stream,), "conv_out": ("", stream)}


def _resnet_groups(name: str, resnet: nn.Module, before: str, after: str) -> dict[str, tuple[str, ...]]:
    if not hasattr(resnet, "temporal_res_block"):
        return _convolution_groups(name, f"{name}.conv1", before, after)
    spatial, temporal = f"{name}.spatial_res_block", f"{name}.temporal_res_block"
    return _convolution_groups(spatial, spatial, before, after) | _convolution_groups(temporal, temporal, after, after)


def _convolution_groups(name: str, inner: str, before: str, after: str) -> dict[str, tuple[str, ...]]:
    return {
        f"{name}.norm1": (before,),
        f"{name}.conv1": (inner, before),
        f"{name}.norm2": (inner,),
        f"{name}.conv2": (after, inner),
        f"{name}.conv_shortcut": (after, before),
    }


def _attention_groups(name: str, stream: str) -> dict[str, tuple[str, ...]]:
    keys, values = f"{name}.to_k", f"{name}.to_v"
    return {
        f"{name}.group_norm": (stream,),
        f"{name}.to_q": (keys, stream),
        f"{name}.to_k": (keys, stream),
        f"{name}.to_v": (values, stream),
        f"{name}.to_out.0": (stream, values),
    }
