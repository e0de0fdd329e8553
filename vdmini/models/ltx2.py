"""LTX-2's family: each block has a stream for the video and one for its sound, and a student loses both."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

from diffusers.models.autoencoders.autoencoder_kl_ltx2 import AutoencoderKLLTX2Video
from diffusers.models.transformers.transformer_ltx2 import LTX2VideoTransformer3DModel
from torch import nn

from vdmini.blocks import ModelInput
from vdmini.models.parts import Stack
from vdmini.models.transformer import TransformerFamily
from vdmini.requests import SampleSettings
from vdmini.tasks.base import Task
from vdmini.tasks.flow import FlowTask

TEXT_TOKENS = 1024
# The frame rate that its pipeline assumes.
FRAMES_PER_SECOND = 24

# Source: diffusers' scripts/convert_ltx2_to_diffusers.py.
_SHARED = {"rope_type": "split"}
_GATED = {
    "gated_attn": True, "cross_attn_mod": True, "audio_gated_attn": True, "audio_cross_attn_mod": True,
    "use_prompt_embeddings": False, "perturbed_attn": True,
}  # fmt: skip
CONFIGS: dict[str, dict[str, Any]] = {
    "ltx-2": _SHARED,
    "ltx-2.3": {**_SHARED, **_GATED},
    "ltx-2.5": {**_SHARED, **_GATED, "ff_bias": False, "use_keyframes_abs_pos_embedding": True},
}
_VAE: dict[str, Any] = {"decoder_causal": False, "spatial_compression_ratio": 32, "temporal_compression_ratio": 8}
_LATER_VAE: dict[str, Any] = {
    **_VAE,
    "block_out_channels": (256, 512, 1024, 1024), "decoder_block_out_channels": (256, 512, 512, 1024),
    "layers_per_block": (4, 6, 4, 2, 2), "decoder_layers_per_block": (4, 6, 4, 2, 2),
    "decoder_spatio_temporal_scaling": (True, True, True, True),
    "decoder_inject_noise": (False, False, False, False, False),
    "upsample_type": ("spatiotemporal", "spatiotemporal", "temporal", "spatial"),
    "upsample_residual": (False, False, False, False), "upsample_factor": (2, 2, 1, 2),
    "decoder_spatial_padding_mode": "zeros",
}  # fmt: skip
VAE_CONFIGS = {"ltx-2": _VAE, "ltx-2.3": _LATER_VAE, "ltx-2.5": _LATER_VAE}


class Ltx2(TransformerFamily):
    """The text's connectors, the sound's VAE and vocoder are parts of the pipeline, and stay as they are."""

    name = "ltx2"
    denoiser_class = LTX2VideoTransformer3DModel
    vae_class = AutoencoderKLLTX2Video
    configs = CONFIGS
    vae_configs = VAE_CONFIGS
    stacks = (Stack("Block", "transformer_blocks", "num_layers"),)
    image_pipeline = "LTX2ImageToVideoPipeline"
    batches_images = False
    texts = MappingProxyType({"encoder_hidden_states": (TEXT_TOKENS, "caption_channels")})
    masks = ("encoder_attention_mask",)
    # 121 frames of 512x768 pixels, the pipeline's default.
    published_size = (16, 16, 24)

    def default_task(self, denoiser: nn.Module) -> Task:
        return FlowTask()

    def input_shapes(self, denoiser: nn.Module, size: ModelInput) -> dict[str, tuple[int, ...]]:
        """Both streams come as tokens, the sound's as many as its pipeline gives a clip of this length."""
        config: Any = denoiser.config
        seconds = ((size.frames - 1) * config.vae_scale_factors[0] + 1) / FRAMES_PER_SECOND
        rate = config.audio_sampling_rate / config.audio_hop_length / config.audio_scale_factor
        tokens, sound = size.frames * size.height * size.width, round(seconds * rate)
        widths = config.cross_attention_dim, config.audio_cross_attention_dim
        if config.use_prompt_embeddings:
            widths = config.caption_channels, config.caption_channels
        return super().input_shapes(denoiser, size) | {
            "hidden_states": (size.batch, tokens, config.in_channels),
            "audio_hidden_states": (size.batch, sound, config.audio_in_channels),
            "encoder_hidden_states": (size.batch, TEXT_TOKENS, widths[0]),
            "audio_encoder_hidden_states": (size.batch, TEXT_TOKENS, widths[1]),
            "audio_encoder_attention_mask": (size.batch, TEXT_TOKENS),
            "sigma": (size.batch,),
            "video_coords": (size.batch, 3, tokens, 2),
            "audio_coords": (size.batch, 1, sound, 2),
        }

    def passes_per_step(self, denoiser: nn.Module, settings: SampleSettings) -> int:
        """As below, and one each for its pipeline's guidance by a perturbed block and by streams apart."""
        return self.passes_at_once(denoiser, settings) + 2

    def passes_at_once(self, denoiser: nn.Module, settings: SampleSettings) -> int:
        """Two where the video or the sound, at 7 unless it is set, is guided by a pass without the prompt."""
        return 1 if settings.guidance is not None and max(settings.guidance, settings.second_guidance or 7) <= 1 else 2


FAMILY = Ltx2()
