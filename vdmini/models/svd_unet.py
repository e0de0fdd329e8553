"""The student class of Stable Video Diffusion's UNet, which may lack its mid block and single layers."""

from __future__ import annotations

from diffusers.configuration_utils import register_to_config
from diffusers.models.unets.unet_spatio_temporal_condition import UNetSpatioTemporalConditionModel
from torch import Tensor, nn

from vdmini.models.unet import settings_of

MID_BLOCK_TYPE = "UNetMidBlockSpatioTemporal"


class NoMidBlock(nn.Module):
    """Stands where a pruned UNet had its middle block and passes the hidden states on."""

    def forward(
        self,
        hidden_states: Tensor,
        temb: Tensor | None = None,
        encoder_hidden_states: Tensor | None = None,
        image_only_indicator: Tensor | None = None,
    ) -> Tensor:
        """Return `hidden_states`, (B T) C H W, untouched."""
        return hidden_states


class VDMiniUNetSpatioTemporal(UNetSpatioTemporalConditionModel):
    """SVD's UNet with any number of stages, as many layers in each as given, and a middle block only if asked for.

    The defaults are VDMini's student of SVD. `layers_per_block` counts the pairs of each down stage; the up stage of
    the same resolution has one more. `mid_block_type` is None or "UNetMidBlockSpatioTemporal". Inputs and outputs are
    those of the parent: B T C H W latents, height and width best divisible by 2 ** (stages - 1).
    """

    # diffusers writes this name into model_index.json and asks the module of this name for the class when loading.
    __module__ = "vdmini"

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(
        self,
        sample_size: int | None = None,
        in_channels: int = 8,
        out_channels: int = 4,
        down_block_types: tuple[str, ...] = ("CrossAttnDownBlockSpatioTemporal",) * 3,
        up_block_types: tuple[str, ...] = ("CrossAttnUpBlockSpatioTemporal",) * 3,
        block_out_channels: tuple[int, ...] = (320, 640, 1280),
        addition_time_embed_dim: int = 256,
        projection_class_embeddings_input_dim: int = 768,
        layers_per_block: int | tuple[int, ...] = (1, 1, 2),
        cross_attention_dim: int | tuple[int, ...] = 1024,
        transformer_layers_per_block: int | tuple[int, ...] = 1,
        num_attention_heads: int | tuple[int, ...] = (5, 10, 20),
        num_frames: int = 25,
        mid_block_type: str | None = None,
    ) -> None:
        if mid_block_type not in (None, MID_BLOCK_TYPE):
            raise ValueError(f"unknown mid_block_type {mid_block_type!r}: use None or {MID_BLOCK_TYPE!r}")
        super().__init__(**settings_of(UNetSpatioTemporalConditionModel, self.config))
        if mid_block_type is None:
            self.mid_block = NoMidBlock()
