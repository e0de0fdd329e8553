"""The embedded teacher's networks: Stable Video Diffusion's own classes and topology at a size a laptop can run."""

from __future__ import annotations

from typing import Any

from diffusers import AutoencoderKLTemporalDecoder, EulerDiscreteScheduler, UNetSpatioTemporalConditionModel
from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModelWithProjection

LATENT_CHANNELS = 4
PROJECTION_SIZE = 64
# Widths before the last normalisations are 96 or more: these networks normalise in 32 groups, and groups of one or two
# channels cannot carry a flat frame's colour (two constants always normalise to -1 and 1).
VAE: dict[str, Any] = {
    "down_block_types": ("DownEncoderBlock2D",) * 3,
    "block_out_channels": (96, 64, 128),
    "layers_per_block": 1,
    "latent_channels": LATENT_CHANNELS,
    "sample_size": 32,
    "force_upcast": False,
}


def build_vae() -> AutoencoderKLTemporalDecoder:
    """A 4x compressing VAE with SVD's temporal decoder: B C 32 32 in [-1, 1] to B 4 8 8 latents."""
    return AutoencoderKLTemporalDecoder(**VAE)


def build_denoiser() -> UNetSpatioTemporalConditionModel:
    """SVD's four-stage UNet at small widths: noisy and condition latents in (8 channels), v-prediction out (4)."""
    return UNetSpatioTemporalConditionModel(
        sample_size=8,
        in_channels=2 * LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        block_out_channels=(96, 64, 64, 64),
        addition_time_embed_dim=32,
        projection_class_embeddings_input_dim=96,
        layers_per_block=2,
        cross_attention_dim=PROJECTION_SIZE,
        transformer_layers_per_block=1,
        num_attention_heads=(3, 2, 2, 2),
        num_frames=10,
    )


def build_image_encoder() -> CLIPVisionModelWithProjection:
    """A two-layer CLIP vision tower at CLIP's own 224x224 input, trained together with the denoiser."""
    config = CLIPVisionConfig(
        hidden_size=64,
        intermediate_size=128,
        projection_dim=PROJECTION_SIZE,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=224,
        patch_size=32,
    )
    return CLIPVisionModelWithProjection(config)


def build_feature_extractor() -> CLIPImageProcessor:
    """The processor that SVD's pipeline normalises its 224x224 images with."""
    return CLIPImageProcessor(size={"shortest_edge": 224}, crop_size={"height": 224, "width": 224})


def build_scheduler() -> EulerDiscreteScheduler:
    """SVD's sampler settings with sigmas that suit 8x8 latents: Karras spacing, v-prediction, continuous timesteps."""
    return EulerDiscreteScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        use_karras_sigmas=True,
        sigma_min=0.01,
        sigma_max=40.0,
        timestep_type="continuous",
        timestep_spacing="leading",
        steps_offset=1,
        final_sigmas_type="zero",
    )
