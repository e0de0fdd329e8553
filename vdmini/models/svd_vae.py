"""SVD's VAE with a temporal decoder of its own widths and layers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from diffusers.configuration_utils import register_to_config
from diffusers.models.autoencoders.autoencoder_kl_temporal_decoder import (
    AutoencoderKLTemporalDecoder,
    TemporalDecoder,
)
from diffusers.models.unets.unet_3d_blocks import MidBlockTemporalDecoder, UpBlockTemporalDecoder
from torch import nn

from vdmini.models.decoder import build_stages
from vdmini.models.svd_unet import NoMidBlock
from vdmini.models.unet import settings_of


class VDMiniTemporalDecoder(TemporalDecoder):
    """SVD's decoder with its own width and number of resnets at each stage, and a middle block only if asked for.

    Widths and layers are in the order that the stages run, the lowest resolution first. A stage starts with a 1x1
    shortcut where its width differs from the stage before, and always where the teacher's does. Inputs and outputs
    are those of the parent: (B T) C H W latents in, (B T) 3 8H 8W RGB in [-1, 1] out for four stages.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        stages, widths = build_stages(config, temporal_stage), config["decoder_block_out_channels"]
        super().__init__(config["latent_channels"], config["out_channels"], tuple(reversed(widths)), layers_per_block=1)
        self.layers_per_block = list(config["decoder_layers_per_block"])
        self.mid_block = NoMidBlock()
        if config["decoder_mid_block"]:
            self.mid_block = MidBlockTemporalDecoder(widths[0], widths[0], widths[0], config["layers_per_block"])
        self.up_blocks = stages


def temporal_stage(config: Mapping[str, Any], before: int, width: int, layers: int, upsamples: bool) -> nn.Module:
    """A stage of SVD's decoder."""
    return UpBlockTemporalDecoder(before, width, num_layers=layers, add_upsample=upsamples)


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
        super().__init__(**settings_of(AutoencoderKLTemporalDecoder, self.config))
        self.decoder = VDMiniTemporalDecoder(self.config)
