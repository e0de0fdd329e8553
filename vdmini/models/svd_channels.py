"""The class of channel-pruned students of SVD: its UNet with layers of their own widths."""

from __future__ import annotations

from diffusers.configuration_utils import register_to_config

from vdmini.models.narrow import narrow_layers
from vdmini.models.svd_unet import MID_BLOCK_TYPE, VDMiniUNetSpatioTemporal
from vdmini.models.unet import settings_of


class VDMiniChannelPrunedUNetSpatioTemporal(VDMiniUNetSpatioTemporal):
    """SVD's UNet, whole or block-pruned, with layers of their own widths, `layer_channels` of `narrow_layers`."""

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
        narrow_layers(self, layer_channels)
