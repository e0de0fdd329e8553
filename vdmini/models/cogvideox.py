"""CogVideoX's text-to-video family, diffusion with v-prediction where its siblings match flows."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

from diffusers.models.autoencoders.autoencoder_kl_cogvideox import AutoencoderKLCogVideoX
from diffusers.models.transformers.cogvideox_transformer_3d import CogVideoXTransformer3DModel
from torch import nn

from vdmini.blocks import ModelInput
from vdmini.models.transformer import Stack, TransformerFamily
from vdmini.tasks.base import Task
from vdmini.tasks.epsilon import EpsilonTask

TEXT_TOKENS = 226

# Source: diffusers' scripts/convert_cogvideox_to_diffusers.py; copies of the published config.json agree.
CONFIGS: dict[str, dict[str, Any]] = {
    "cogvideox-5b": {"num_attention_heads": 48, "num_layers": 42, "use_rotary_positional_embeddings": True},
}
VAE_CONFIGS = {"cogvideox-2b": {"scaling_factor": 1.15258426}, "cogvideox-5b": {"scaling_factor": 0.7}}


class CogVideoX(TransformerFamily):
    """Its discrete timesteps go to zero terminal signal, so its task is neither "flow" nor SVD's "edm"."""

    name = "cogvideox"
    denoiser_class = CogVideoXTransformer3DModel
    vae_class = AutoencoderKLCogVideoX
    configs = CONFIGS
    vae_configs = VAE_CONFIGS
    # The VAE makes four frames of a latent, but decodes latents in pairs: of an even number it makes others than asked.
    latents_at_once = 2
    stacks = (Stack("Block", "transformer_blocks", "num_layers"),)
    # The rotary embedding, without which the 5B model computes the same amount, is left out.
    texts = MappingProxyType({"encoder_hidden_states": (TEXT_TOKENS, "text_embed_dim")})
    frames_first = True

    def latent_compression(self, vae: Any) -> tuple[int, int]:
        return vae.config.temporal_compression_ratio, 2 ** (len(vae.config.block_out_channels) - 1)

    def default_task(self, denoiser: nn.Module) -> Task:
        """The velocity is predicted, down to no signal at all; the 2B model's schedule is shifted."""
        config: Any = denoiser.config
        shift = 1.0 if config.use_rotary_positional_embeddings else 3.0
        return EpsilonTask(prediction="v", zero_terminal_snr=True, snr_shift=shift)

    def default_input(self, denoiser: nn.Module) -> ModelInput:
        """One clip of the model's own size: 49 frames of 480x720 pixels for the published ones."""
        config: Any = denoiser.config
        frames = (config.sample_frames - 1) // config.temporal_compression_ratio + 1
        return ModelInput(batch=1, frames=frames, height=config.sample_height, width=config.sample_width)


FAMILY = CogVideoX()
