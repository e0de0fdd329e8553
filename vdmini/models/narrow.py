"""Networks with layers of their own widths: what `layer_channels` in their configuration says, and what follows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from diffusers.models.attention_processor import Attention
from diffusers.models.downsampling import Downsample2D
from diffusers.models.upsampling import Upsample2D
from torch import nn

from vdmini.errors import PlanError


def narrow_layers(network: nn.Module, layer_channels: Mapping[str, Sequence[int]] | None) -> None:
    """Cut layers in place to their first channels, and tell the modules around them.

    `layer_channels` gives the first two sizes of the weight (one for a normalisation) of every layer, by its name,
    whose width the other settings do not tell. Raises ValueError for a layer that is not there or would grow.
    """
    for name, channels in (layer_channels or {}).items():
        _narrow(network, name, channels)
    _follow_layers(network)


def channel_setting(denoiser: nn.Module) -> dict[str, Any]:
    """The setting `layer_channels` of a channel-pruned denoiser; nothing for any other.

    A network whose layers all have their usual width is the same whichever class it has.
    """
    config: Any = denoiser.config
    widths = config.get("layer_channels")
    return {"layer_channels": dict(widths)} if widths else {}


def require_all_channels(teacher: nn.Module, removed: Sequence[str]) -> None:
    """Raise PlanError when blocks are to go after channels.

    The blocks that would become neighbours do not agree on which channels are left.
    """
    if removed and channel_setting(teacher):
        raise PlanError(
            f"the teacher's channels were pruned, so that {removed[0]} cannot go any more: prune blocks first, then"
            " channels, starting from the teacher that has all of both"
        )


def _narrow(network: nn.Module, name: str, channels: Sequence[int]) -> None:
    """Cut one layer's weights to the first channels."""
    try:
        layer: Any = network.get_submodule(name)
        before = layer.weight.shape[:2]
    except AttributeError as error:
        raise ValueError(f"layer_channels names {name!r}, which this network lacks") from error
    if len(channels) != len(before) or any(not 0 < new <= old for new, old in zip(channels, before, strict=True)):
        raise ValueError(f"{name} has {[*before]} channels, which {[*channels]} cannot be cut from")
    layer.weight = nn.Parameter(layer.weight.detach()[tuple(slice(0, size) for size in channels)].clone())
    if layer.bias is not None:
        layer.bias = nn.Parameter(layer.bias.detach()[: channels[0]].clone())
    if isinstance(layer, nn.GroupNorm):
        layer.num_channels = channels[0]
    elif isinstance(layer, nn.LayerNorm):
        layer.normalized_shape = (channels[0],)
    elif isinstance(layer, nn.Linear):
        layer.out_features, layer.in_features = channels
    else:
        layer.out_channels, layer.in_channels = channels


def _follow_layers(network: nn.Module) -> None:
    """Tell the modules that remember a width what the layers inside them have now."""
    for module in network.modules():
        if isinstance(module, Upsample2D | Downsample2D):
            module.channels, module.out_channels = module.conv.in_channels, module.conv.out_channels
        elif isinstance(module, Attention):
            module.inner_dim = module.inner_kv_dim = module.to_q.out_features
            module.query_dim = module.to_q.in_features
            module.cross_attention_dim = module.to_k.in_features
            module.out_dim = module.to_out[0].out_features
            module.scale = (module.inner_dim // module.heads) ** -0.5
