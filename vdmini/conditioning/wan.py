"""Wan's clips: latents of a causal video VAE, a text as UMT5's embeddings, and an image where one is animated."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from PIL import Image
from torch import Tensor, nn

from vdmini.blocks import ModelInput
from vdmini.conditioning import Conditioning
from vdmini.conditioning.transformer import TransformerConditioning, mean_of_tokens
from vdmini.models.wan import FAMILY

# Of the VAE of Wan 2.2 TI2V-5B, whose pipeline times every token.
TIMED_CHANNELS = 48


class WanConditioning(TransformerConditioning):
    """Embeddings are zero after the prompt's last token; Wan 2.1 also gets an image's from CLIP, "image_embeds" N E."""

    family = FAMILY
    arguments = MappingProxyType(
        {"prompt_embeds": "encoder_hidden_states", "image_embeds": "encoder_hidden_states_image"}
    )
    texts = ("prompt_embeds",)

    def prompt_options(self, run: Any, picture: Image.Image | None) -> Mapping[str, object]:
        return {**super().prompt_options(run, picture), "max_sequence_length": self.family.text_tokens(run)}

    def image_conditions(self, run: Any, picture: Image.Image, prepared: Any, latents: Tensor) -> dict[str, Tensor]:
        if self.times_frames(run):
            return {"first_frame": self.frames_of(prepared[1])}
        seen = {"image_embeds": run.encode_image(picture)[0]} if run.transformer.config.image_dim is not None else {}
        return {**super().image_conditions(run, picture, prepared, latents), **seen}

    def times_frames(self, run: Any) -> bool:
        return bool(run.config.get("expand_timesteps"))

    def clip_shapes(self, denoiser: nn.Module, size: ModelInput) -> dict[str, tuple[int, ...]]:
        config: Any = denoiser.config
        timed = {"frame_times": (size.frames,)} if config.in_channels == TIMED_CHANNELS else {}
        return {**super().clip_shapes(denoiser, size), **timed}

    def condition_embedding(self, conditions: Mapping[str, Tensor]) -> Tensor:
        """The mean of the prompt's own tokens, B E float32."""
        return mean_of_tokens(conditions["prompt_embeds"], conditions["prompt_embeds"].any(2))


CONDITIONING: Conditioning = WanConditioning()
