"""A smaller VAE decoder: no middle block, fewer layers and fewer channels than the temporal decoder it is cut from."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import torch
from diffusers.configuration_utils import register_to_config
from diffusers.models.autoencoders.autoencoder_kl_temporal_decoder import (
    AutoencoderKLTemporalDecoder,
    TemporalDecoder,
)
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.unets.unet_3d_blocks import MidBlockTemporalDecoder, UpBlockTemporalDecoder
from torch import Tensor, nn

from vdmini.cost import count_flops, count_parameters
from vdmini.models.svd_unet import NoMidBlock
from vdmini.models.unet import settings_of

# Every normalisation of the decoder has this many groups, so this is also the step between widths.
GROUPS = 32
# A target is met by widths this near to it: steps of 32 channels seldom come nearer.
TOLERANCE = 0.0025


class VDMiniTemporalDecoder(TemporalDecoder):
    """SVD's decoder with its own width and number of resnets at each stage, and a middle block only if asked for.

    Widths and layers are in the order that the stages run, the lowest resolution first. A stage starts with a 1x1
    shortcut where its width differs from the stage before, and always where `shortcuts` says so. Inputs and outputs
    are those of the parent: (B T) C H W latents in, (B T) 3 8H 8W RGB in [-1, 1] out for four stages.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        widths: Sequence[int],
        layers: Sequence[int],
        shortcuts: Sequence[bool],
        mid_block_layers: int | None,
    ) -> None:
        super().__init__(in_channels, out_channels, block_out_channels=tuple(reversed(widths)), layers_per_block=1)
        self.layers_per_block = list(layers)
        self.mid_block = NoMidBlock() if mid_block_layers is None else _mid_block(widths[0], mid_block_layers)
        before = (widths[0], *widths)
        self.up_blocks = nn.ModuleList(
            _up_block(before[index], width, layers[index], shortcuts[index], upsamples=index < len(widths) - 1)
            for index, width in enumerate(widths)
        )


class VDMiniAutoencoderKLTemporalDecoder(AutoencoderKLTemporalDecoder):
    """SVD's VAE with the decoder of `VDMiniTemporalDecoder`; the encoder is the teacher's.

    The defaults are the published student of SF-V's VAE. `block_out_channels` and `layers_per_block` remain the
    teacher's, the encoder's order; `decoder_block_out_channels` and `decoder_layers_per_block` are in the order that
    the decoder runs. Raises ValueError when they do not fit the teacher.
    """

    # diffusers writes this name into model_index.json and asks the module of this name for the class when loading.
    __module__ = "vdmini"

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 3,
        down_block_types: tuple[str, ...] = ("DownEncoderBlock2D",) * 4,
        block_out_channels: tuple[int, ...] = (128, 256, 512, 512),
        layers_per_block: int = 2,
        latent_channels: int = 4,
        sample_size: int = 768,
        scaling_factor: float = 0.18215,
        force_upcast: bool = True,
        decoder_block_out_channels: tuple[int, ...] = (512, 448, 96, 32),
        decoder_layers_per_block: tuple[int, ...] = (3, 3, 3, 1),
        decoder_mid_block: bool = False,
    ) -> None:
        _check_shape(block_out_channels, layers_per_block, decoder_block_out_channels, decoder_layers_per_block)
        super().__init__(**settings_of(AutoencoderKLTemporalDecoder, self.config))
        self.decoder = VDMiniTemporalDecoder(
            in_channels=latent_channels,
            out_channels=out_channels,
            widths=decoder_block_out_channels,
            layers=decoder_layers_per_block,
            shortcuts=_shortcuts(block_out_channels),
            mid_block_layers=layers_per_block if decoder_mid_block else None,
        )


def prune_decoder(
    vae: AutoencoderKLTemporalDecoder,
    *,
    parameters: int | None = None,
    widths: Sequence[int] | None = None,
    layers: Sequence[int] | None = None,
    mid_block: bool = False,
) -> VDMiniAutoencoderKLTemporalDecoder:
    """The student of a temporal VAE: its encoder, and its decoder with fewer layers and channels, weights inherited.

    `widths` (each a multiple of 32) and `layers` are the channels and resnets of each stage in the order they run; by
    default no channel goes, and of the resnets all but the first of the last stage stay. `parameters` instead of
    `widths` asks for a decoder of that many weights: of all widths that never grow from stage to stage and come within
    0.25 % of it, those with the fewest FLOPs. Of each channel group that layers share, the channels whose weights have
    the largest L2 norm are kept, the same number in every group of the teacher's GroupNorms. The teacher is not changed
    and may be on the meta device; dtype, device and mode are inherited. Raises TypeError for any other VAE, ValueError
    for sizes that do not fit.

    Source: the decoder of VDMini-I2V (Wu et al., arXiv 2411.18375): 39.17 M of 63.58 M weights left, no middle block.
    """
    if type(vae) is not AutoencoderKLTemporalDecoder:
        raise TypeError(f"prune_decoder needs an AutoencoderKLTemporalDecoder that is not pruned, got {type(vae)}")
    if parameters is not None and widths is not None:
        raise ValueError("give parameters or widths, not both: widths decide the number of parameters")
    config = {name: value for name, value in vae.config.items() if not name.startswith("_")}
    stages = tuple(reversed(config["block_out_channels"]))
    whole = config["layers_per_block"] + 1
    config["decoder_layers_per_block"] = [*(layers or (*(whole,) * (len(stages) - 1), 1))]
    config["decoder_block_out_channels"] = [*(widths or stages)]
    config["decoder_mid_block"] = mid_block
    if parameters is not None:
        config["decoder_block_out_channels"] = [*_widths_for(config, parameters)]
    student = _on_meta(config)
    student.encoder.load_state_dict(_copied(vae.encoder), assign=True)
    student.quant_conv.load_state_dict(_copied(vae.quant_conv), assign=True)
    student.decoder.load_state_dict(_inherited(vae.decoder, student.decoder), assign=True)
    return student.train(vae.training)


def _check_shape(
    teacher_widths: Sequence[int], teacher_layers: int, widths: Sequence[int], layers: Sequence[int]
) -> None:
    stages = tuple(reversed(teacher_widths))
    if len(widths) != len(stages) or len(layers) != len(stages):
        raise ValueError(
            f"the decoder has {len(stages)} stages, got {len(widths)} widths and {len(layers)} layers: give one a stage"
        )
    for index, (width, most) in enumerate(zip(widths, stages, strict=True)):
        if not 0 < width <= most or width % GROUPS:
            raise ValueError(f"stage {index} cannot be {width} wide: use a multiple of {GROUPS} up to {most}")
    for index, count in enumerate(layers):
        if not 1 <= count <= teacher_layers + 1:
            raise ValueError(f"stage {index} cannot have {count} resnets: use 1 to {teacher_layers + 1}")


def _shortcuts(teacher_widths: Sequence[int]) -> list[bool]:
    """Whether the teacher's stage starts with a shortcut, whose weights the student must have a place for."""
    stages = tuple(reversed(teacher_widths))
    return [False, *(before != after for before, after in itertools.pairwise(stages))]


def _mid_block(width: int, layers: int) -> nn.Module:
    return MidBlockTemporalDecoder(num_layers=layers, in_channels=width, out_channels=width, attention_head_dim=width)


def _up_block(in_channels: int, width: int, layers: int, shortcut: bool, upsamples: bool) -> nn.Module:
    block = UpBlockTemporalDecoder(in_channels, width, num_layers=layers, add_upsample=upsamples)
    if shortcut and in_channels == width:
        # The stock block drops the shortcut where both widths agree, but the teacher's is a layer with weights.
        block.resnets[0].spatial_res_block = ResnetBlock2D(
            in_channels=in_channels, out_channels=width, temb_channels=None, eps=1e-6, use_in_shortcut=True
        )
    return block


def _on_meta(config: dict[str, Any]) -> VDMiniAutoencoderKLTemporalDecoder:
    with torch.device("meta"):
        student = VDMiniAutoencoderKLTemporalDecoder(**config)
    # Some layers make their tensors on the CPU whatever the default device is.
    return student.to("meta")


def _widths_for(config: dict[str, Any], parameters: int) -> tuple[int, ...]:
    """The widths with the fewest FLOPs of those whose decoder has about as many weights as asked for."""
    counts = _decoder_sizes(config)
    near = [widths for widths, count in counts.items() if abs(count - parameters) <= TOLERANCE * parameters]
    if not near:
        nearest = min(counts, key=lambda widths: abs(counts[widths] - parameters))
        raise ValueError(
            f"no widths give a decoder of {parameters} parameters within {TOLERANCE:.2%}: the nearest are"
            f" {list(nearest)} with {counts[nearest]}, ask for that many or give widths"
        )
    return min(near, key=lambda widths: count_flops(_decoder(config, widths), _example_inputs(config)))


def _decoder_sizes(config: dict[str, Any]) -> dict[tuple[int, ...], int]:
    """Number of weights of the decoder by its widths, for all that never grow from one stage to the next."""
    stages = tuple(reversed(config["block_out_channels"]))
    layers, shortcuts = config["decoder_layers_per_block"], _shortcuts(config["block_out_channels"])

    @cache
    def stage_size(index: int, before: int, width: int) -> int:
        with torch.device("meta"):
            block = _up_block(before, width, layers[index], shortcuts[index], upsamples=index < len(stages) - 1)
        return count_parameters(block)

    sizes = {}
    # What is not part of a stage depends on the first and the last width alone.
    outside: dict[tuple[int, int], int] = {}
    for widths in itertools.product(*(range(GROUPS, most + 1, GROUPS) for most in stages)):
        if any(before < after for before, after in itertools.pairwise(widths)):
            continue
        before = (widths[0], *widths)
        inside = sum(stage_size(index, before[index], width) for index, width in enumerate(widths))
        ends = widths[0], widths[-1]
        if ends not in outside:
            outside[ends] = count_parameters(_decoder(config, widths)) - inside
        sizes[widths] = inside + outside[ends]
    return sizes


def _decoder(config: dict[str, Any], widths: Sequence[int]) -> nn.Module:
    decoder: nn.Module = _on_meta({**config, "decoder_block_out_channels": widths}).decoder
    return decoder


def _example_inputs(config: dict[str, Any]) -> dict[str, object]:
    return {
        "sample": torch.empty(1, config["latent_channels"], 8, 8, device="meta"),
        "image_only_indicator": torch.zeros(1, 1, device="meta"),
        "num_frames": 1,
    }


def _copied(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def _inherited(teacher: nn.Module, student: nn.Module) -> dict[str, Tensor]:
    """The student's weights: those of the teacher's layers, without the pruned channels of each group."""
    weights = teacher.state_dict()
    groups = _channel_groups(teacher)
    scores = _channel_scores(weights, groups)
    inherited = {}
    for name, wanted in student.state_dict().items():
        layer = name.rpartition(".")[0]
        ends = groups.get(layer, ())
        kept = [_kept(scores[group], wanted.shape[dim]) for dim, group in enumerate(ends[: wanted.ndim]) if group]
        if name not in weights:
            # The teacher passes these channels on as they are, so the student's shortcut starts as their selection.
            selection = kept[0][:, None] == kept[-1] if wanted.ndim > 1 else torch.zeros_like(kept[0])
            inherited[name] = selection.to(weights["conv_in.weight"].dtype).reshape(wanted.shape)
            continue
        weight = weights[name]
        for dim, group in enumerate(ends[: weight.ndim]):
            if group:
                weight = weight.index_select(dim, _kept(scores[group], wanted.shape[dim]))
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


def _kept(scores: Tensor, width: int) -> Tensor:
    """Indices of the channels to keep, in order; a smaller width keeps a subset of what a larger one keeps."""
    # A GroupNorm of the student then normalises channels that the teacher normalises together.
    ranked = scores.unflatten(0, (GROUPS, -1)).argsort(dim=1, descending=True, stable=True)
    kept = ranked[:, : width // GROUPS].sort(dim=1).values
    return (kept + torch.arange(GROUPS, device=kept.device)[:, None] * ranked.shape[1]).flatten()


def _channel_groups(decoder: nn.Module) -> dict[str, tuple[str, ...]]:
    """The groups of channels that each layer of a teacher's decoder writes and reads, "" for those that all stay.

    Layers that a residual connection joins share a group: it is named after the first module that writes it.
    """
    net: Any = decoder
    stream = "conv_in"
    groups: dict[str, tuple[str, ...]] = {"conv_in": (stream, "")}
    for index in range(len(net.mid_block.resnets)):
        groups |= _resnet_groups(f"mid_block.resnets.{index}", stream, stream)
    for index in range(len(net.mid_block.attentions)):
        groups |= _attention_groups(f"mid_block.attentions.{index}", stream)
    for stage, block in enumerate(net.up_blocks):
        for index, resnet in enumerate(block.resnets):
            name = f"up_blocks.{stage}.resnets.{index}"
            after = stream if resnet.spatial_res_block.conv_shortcut is None else name
            groups |= _resnet_groups(name, stream, after)
            stream = after
        if block.upsamplers is not None:
            name = f"up_blocks.{stage}.upsamplers.0.conv"
            groups[name] = (name, stream)
            stream = name
    return groups | {"conv_norm_out": (stream,), "conv_out": ("", stream)}


def _resnet_groups(name: str, before: str, after: str) -> dict[str, tuple[str, ...]]:
    spatial, temporal = f"{name}.spatial_res_block", f"{name}.temporal_res_block"
    return {
        f"{spatial}.norm1": (before,),
        f"{spatial}.conv1": (spatial, before),
        f"{spatial}.norm2": (spatial,),
        f"{spatial}.conv2": (after, spatial),
        f"{spatial}.conv_shortcut": (after, before),
        f"{temporal}.norm1": (after,),
        f"{temporal}.conv1": (temporal, after),
        f"{temporal}.norm2": (temporal,),
        f"{temporal}.conv2": (after, temporal),
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
