"""The frame-wise VAE of VideoCrafter2, T2V-Turbo-v2 and AnimateDiff with a decoder of its own widths and layers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from diffusers.configuration_utils import register_to_config
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.autoencoders.vae import Decoder
from diffusers.models.unets.unet_2d_blocks import UpDecoderBlock2D
from torch import nn

from vdmini.models.decoder import build_stages
from vdmini.models.svd_unet import NoMidBlock
from vdmini.models.unet import settings_of

# The one kind of stage whose channels can be narrowed.
STAGE_TYPE = "UpDecoderBlock2D"


class VDMiniDecoder(Decoder):
    """Stable Diffusion's decoder, of frames alone; otherwise as `VDMiniTemporalDecoder`."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        if others := {*config["up_block_types"]} - {STAGE_TYPE}:
            raise ValueError(f"a decoder with {', '.join(sorted(others))} cannot be pruned: only one of {STAGE_TYPE}")
        stages = build_stages(config, frame_stage)
        super().__init__(
            config["latent_channels"],
            config["out_channels"],
            tuple(config["up_block_types"]),
            tuple(reversed(config["decoder_block_out_channels"])),
            layers_per_block=1,
            norm_num_groups=config["norm_num_groups"],
            act_fn=config["act_fn"],
            mid_block_add_attention=config["mid_block_add_attention"],
        )
        self.layers_per_block = list(config["decoder_layers_per_block"])
        if not config["decoder_mid_block"]:
            self.mid_block = NoMidBlock()
        self.up_blocks = stages


def frame_stage(config: Mapping[str, Any], before: int, width: int, layers: int, upsamples: bool) -> nn.Module:
    """A stage of Stable Diffusion's decoder."""
    act_fn, groups = config["act_fn"], config["norm_num_groups"]
    return UpDecoderBlock2D(
        before, width, num_layers=layers, add_upsample=upsamples, resnet_act_fn=act_fn, resnet_groups=groups
    )


class VDMiniAutoencoderKL(AutoencoderKL):
    """A frame-wise VAE with the decoder of `VDMiniDecoder`; settings as in `VDMiniAutoencoderKLTemporalDecoder`.

    The defaults are Stable Diffusion's VAE without its middle block and the last two resnets.
    """

    # diffusers writes this name into model_index.json and asks the module of this name for the class when loading.
    __module__ = "vdmini"

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 3,
        down_block_types: tuple[str, ...] = ("DownEncoderBlock2D",) * 4,
        up_block_types: tuple[str, ...] = (STAGE_TYPE,) * 4,
        block_out_channels: tuple[int, ...] = (128, 256, 512, 512),
        layers_per_block: int = 2,
        act_fn: str = "silu",
        latent_channels: int = 4,
        norm_num_groups: int = 32,
        sample_size: int = 512,
        scaling_factor: float = 0.18215,
        shift_factor: float | None = None,
        latents_mean: tuple[float, ...] | None = None,
        latents_std: tuple[float, ...] | None = None,
        force_upcast: bool = True,
        use_quant_conv: bool = True,
        use_post_quant_conv: bool = True,
        mid_block_add_attention: bool = True,
        decoder_block_out_channels: tuple[int, ...] = (512, 512, 256, 128),
        decoder_layers_per_block: tuple[int, ...] = (3, 3, 3, 1),
        decoder_mid_block: bool = False,
    ) -> None:
        super().__init__(**settings_of(AutoencoderKL, self.config))
        self.decoder = VDMiniDecoder(self.config)
