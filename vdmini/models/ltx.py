"""LTX-Video's family, from words and an image where there is one: a token is 32x32 pixels in 8 frames."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

from diffusers.models.autoencoders.autoencoder_kl_ltx import AutoencoderKLLTXVideo
from diffusers.models.transformers.transformer_ltx import LTXVideoTransformer3DModel
from torch import nn

from vdmini.blocks import ModelInput
from vdmini.models.parts import Stack
from vdmini.models.transformer import TransformerFamily
from vdmini.tasks.base import Task
from vdmini.tasks.flow import FlowTask

TEXT_TOKENS = 128

# Source: diffusers' scripts/convert_ltx_to_diffusers.py, whose version 0.9.0 has the defaults of both classes. The 2B
# models share their denoiser, later ones of either size the VAE of 0.9.5.
_LARGE = {"attention_head_dim": 128, "cross_attention_dim": 4096, "num_layers": 48}
CONFIGS: dict[str, dict[str, Any]] = {"ltx-video-13b-0.9.7": _LARGE, "ltx-video-13b-0.9.8": _LARGE}
_VAE_0_9_1: dict[str, Any] = {
    "decoder_block_out_channels": (256, 512, 1024), "decoder_layers_per_block": (5, 6, 7, 8),
    "decoder_spatio_temporal_scaling": (True, True, True), "decoder_inject_noise": (True, True, True, False),
    "upsample_residual": (True, True, True), "upsample_factor": (2, 2, 2), "timestep_conditioning": True,
}  # fmt: skip
_VAE_0_9_5: dict[str, Any] = {
    **_VAE_0_9_1,
    "block_out_channels": (128, 256, 512, 1024, 2048), "down_block_types": ("LTXVideo095DownBlock3D",) * 4,
    "layers_per_block": (4, 6, 6, 2, 2), "decoder_layers_per_block": (5, 5, 5, 5),
    "spatio_temporal_scaling": (True, True, True, True), "decoder_inject_noise": (False, False, False, False),
    "downsample_type": ("spatial", "temporal", "spatiotemporal", "spatiotemporal"),
    "spatial_compression_ratio": 32, "temporal_compression_ratio": 8,
}  # fmt: skip
_SHARE_0_9_5 = ("ltx-video-2b-0.9.5", "ltx-video-2b-0.9.6", "ltx-video-2b-0.9.8", *CONFIGS)


class LtxVideo(TransformerFamily):
    """Its pipeline of conditions gives every clip of a batch all the images, so these clips are made one by one."""

    name = "ltx"
    denoiser_class = LTXVideoTransformer3DModel
    vae_class = AutoencoderKLLTXVideo
    configs = CONFIGS
    vae_configs = MappingProxyType({"ltx-video-2b-0.9.1": _VAE_0_9_1, **dict.fromkeys(_SHARE_0_9_5, _VAE_0_9_5)})
    image_pipeline = "LTXImageToVideoPipeline"
    batches_images = False
    stacks = (Stack("Block", "transformer_blocks", "num_layers"),)
    # 161 frames of 512x704 pixels, the pipeline's default.
    published_size = (21, 16, 22)
    texts = MappingProxyType({"encoder_hidden_states": (TEXT_TOKENS, "caption_channels")})
    masks = ("encoder_attention_mask",)

    def default_task(self, denoiser: nn.Module) -> Task:
        return FlowTask()

    def input_shapes(self, denoiser: nn.Module, size: ModelInput) -> dict[str, tuple[int, ...]]:
        """Latents come as tokens, with the place of each in the video."""
        config: Any = denoiser.config
        tokens = size.frames * size.height * size.width
        changed = {"hidden_states": (size.batch, tokens, config.in_channels), "video_coords": (size.batch, 3, tokens)}
        return super().input_shapes(denoiser, size) | changed


FAMILY = LtxVideo()
