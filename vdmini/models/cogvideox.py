"""CogVideoX's family, diffusion with v-prediction where its siblings match flows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from diffusers.models.autoencoders.autoencoder_kl_cogvideox import AutoencoderKLCogVideoX
from diffusers.models.transformers.cogvideox_transformer_3d import CogVideoXTransformer3DModel
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from torch import nn

from vdmini.blocks import ModelInput
from vdmini.models.family import Images
from vdmini.models.parts import Stack
from vdmini.models.transformer import TransformerFamily
from vdmini.tasks.base import Task
from vdmini.tasks.epsilon import EpsilonTask

TEXT_TOKENS = 226

# Source: diffusers' scripts/convert_cogvideox_to_diffusers.py; copies of the published config.json agree.
_LARGE = {"num_attention_heads": 48, "num_layers": 42, "use_rotary_positional_embeddings": True}
_VERSION_1_5 = {
    **_LARGE, "patch_size_t": 2, "patch_bias": False, "sample_frames": 81, "sample_height": 300, "sample_width": 300,
}  # fmt: skip
CONFIGS: dict[str, dict[str, Any]] = {
    "cogvideox-5b": _LARGE,
    "cogvideox-5b-i2v": {**_LARGE, "in_channels": 32, "use_learned_positional_embeddings": True},
    "cogvideox1.5-5b": _VERSION_1_5,
    "cogvideox1.5-5b-i2v": {**_VERSION_1_5, "in_channels": 32, "ofs_embed_dim": 512},
}
VAE_CONFIGS: dict[str, dict[str, Any]] = {
    name: {"scaling_factor": 0.7, "invert_scale_latents": "1.5" in name} for name in CONFIGS
} | {"cogvideox-2b": {"scaling_factor": 1.15258426}}
# 81 frames of 768x1360 pixels, padded to whole patches of two latents: the size that 1.5 was published for, where its
# configuration has the largest that it can make.
SIZE_1_5 = (22, 96, 170)


class CogVideoX(TransformerFamily):
    """Its discrete timesteps go to zero terminal signal, so its task is neither "flow" nor SVD's "edm"."""

    name = "cogvideox"
    denoiser_class = CogVideoXTransformer3DModel
    vae_class = AutoencoderKLCogVideoX
    configs: Mapping[str, Mapping[str, Any]] = CONFIGS
    vae_configs: Mapping[str, Mapping[str, Any]] = VAE_CONFIGS
    # The VAE makes four frames of a latent, but decodes latents in pairs: of an even number it makes others than asked.
    latents_at_once = 2
    stacks = (Stack("Block", "transformer_blocks", "num_layers"),)
    # The rotary embedding, without which the 5B model computes the same amount, is left out.
    texts = MappingProxyType({"encoder_hidden_states": (TEXT_TOKENS, "text_embed_dim")})
    frames_first = True
    image_pipeline = "CogVideoXImageToVideoPipeline"

    def latent_compression(self, vae: Any) -> tuple[int, int]:
        return vae.config.temporal_compression_ratio, 2 ** (len(vae.config.block_out_channels) - 1)

    def latent_frames(self, denoiser: nn.Module, frames: int, stride: int) -> int:
        """Those of the VAE, and where a patch spans several what fills the last one."""
        latents, patch = super().latent_frames(denoiser, frames, stride), self.patch(denoiser)[0]
        return -(-latents // patch) * patch

    def clip_frames(self, denoiser: nn.Module, latents: int, stride: int) -> int:
        """Of an odd number of latents, as the VAE decodes them: the last of an even one only fills a patch."""
        return super().clip_frames(denoiser, latents - 1 + latents % 2, stride)

    def default_task(self, denoiser: nn.Module) -> Task:
        """The velocity is predicted, down to no signal at all; the 2B model's schedule is shifted."""
        config: Any = denoiser.config
        shift = 1.0 if config.use_rotary_positional_embeddings else 3.0
        return EpsilonTask(prediction="v", zero_terminal_snr=True, snr_shift=shift)

    def smallest_input(self, denoiser: nn.Module) -> ModelInput:
        """Of the model's own height and width, where it has learned the places in them."""
        config: Any = denoiser.config
        own = {"height": config.sample_height, "width": config.sample_width}
        smallest = super().smallest_input(denoiser)
        return replace(smallest, **own) if config.use_learned_positional_embeddings else smallest

    def default_input(self, denoiser: nn.Module) -> ModelInput:
        """One clip of the model's own size: 49 frames of 480x720 pixels for the published ones."""
        config: Any = denoiser.config
        if config.get("patch_size_t") is not None:
            return ModelInput(1, *SIZE_1_5)
        frames = (config.sample_frames - 1) // config.temporal_compression_ratio + 1
        return ModelInput(batch=1, frames=frames, height=config.sample_height, width=config.sample_width)

    def images(self, denoiser: nn.Module) -> Images:
        """What animates images takes their latents beside its own, and makes nothing without them."""
        config: Any = denoiser.config
        return "always" if config.in_channels > config.out_channels else "never"

    def clip_grid(self, pipeline: DiffusionPipeline) -> tuple[tuple[int, int], ...]:
        """Where places are learned, sides are the model's own."""
        run: Any = pipeline
        config, pixels = run.transformer.config, self.latent_compression(run.vae)[1]
        frames, *sides = super().clip_grid(pipeline)
        learned = [(config.sample_height * pixels, 0), (config.sample_width * pixels, 0)]
        return frames, *(learned if config.use_learned_positional_embeddings else sides)

    def input_shapes(self, denoiser: nn.Module, size: ModelInput) -> dict[str, tuple[int, ...]]:
        config: Any = denoiser.config
        shapes = super().input_shapes(denoiser, size)
        return shapes | ({"ofs": (1,)} if config.get("ofs_embed_dim") else {})


FAMILY = CogVideoX()
