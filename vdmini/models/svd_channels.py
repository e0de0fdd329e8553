"""The class of channel-pruned students of SVD: its UNet with layers of their own widths."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from diffusers.configuration_utils import register_to_config
from diffusers.models.attention_processor import Attention
from diffusers.models.downsampling import Downsample2D
from diffusers.models.upsampling import Upsample2D
from torch import nn

from vdmini.models.svd_unet import MID_BLOCK_TYPE, VDMiniUNetSpatioTemporal
from vdmini.models.unet import settings_of


class VDMiniChannelPrunedUNetSpatioTemporal(VDMiniUNetSpatioTemporal):
    """SVD's UNet, whole or block-pruned, with layers of their own widths.

    `layer_channels` gives the first two sizes of the weight (one for a normalisation) of every layer, by its name,
    whose width the other arguments do not tell. Raises ValueError for a layer that is not there or would grow.
    """

    # diffusers writes this name into model_index.json and asks the module of this name for the class when loading.
    __module__ = "vdmini"

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(
        self,
        sample_size: int | None = None,
        in_channels: int = 8,
        out_channels: int = 4,
        down_block_types: tuple[str, ...] = (*("CrossAttnDownBlockSpatioTemporal",) * 3, "DownBlockSpatioTemporal"),
        up_block_types: tuple[str, ...] = ("UpBlockSpatioTemporal", *("CrossAttnUpBlockSpatioTemporal",) * 3),
        block_out_channels: tuple[int, ...] = (320, 640, 1280, 1280),
        addition_time_embed_dim: int = 256,
        projection_class_embeddings_input_dim: int = 768,
        layers_per_block: int | tuple[int, ...] = 2,
        cross_attention_dim: int | tuple[int, ...] = 1024,
        transformer_layers_per_block: int | tuple[int, ...] = 1,
        num_attention_heads: int | tuple[int, ...] = (5, 10, 20, 20),
        num_frames: int = 25,
        mid_block_type: str | None = MID_BLOCK_TYPE,
        layer_channels: dict[str, list[int]] | None = None,
    ) -> None:
        super().__init__(**settings_of(VDMiniUNetSpatioTemporal, self.config))
        for name, channels in (layer_channels or {}).items():
            _narrow(self, name, channels)
        _follow_layers(self)


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
