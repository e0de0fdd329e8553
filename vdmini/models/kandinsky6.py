"""Kandinsky 6's family: each block draws the video and its sound, and lets one read the other."""

from __future__ import annotations

import math
from types import MappingProxyType
from typing import Any

from diffusers.models.transformers.transformer_kandinsky6 import Kandinsky6Transformer3DModel
from torch import nn

from vdmini.blocks import ModelInput
from vdmini.models.kandinsky5 import Kandinsky

TEXT_TOKENS = 1024
FRAMES_PER_SECOND, SOUND_PER_SECOND = 24, 44100 / 1024

# Source: the settings of kandinskylab/Kandinsky-6.0-Pro-sft-5s-Diffusers, as public ports of it have them.
PRO = {
    "in_audio_dim": 40, "out_audio_dim": 40, "model_dim_a": 2048, "ff_dim_a": 7168, "time_dim_a": 1024,
    "axes_dims_a": (32, 48, 48), "audio_freqs_scaling": 0.144, "text_token_padding": True, "ca_rope": True,
    "cross_gates": True, "fix_modulation": True, "visual_token_type_num_embeddings": 2,
}  # fmt: skip


class Kandinsky6(Kandinsky):
    """One pipeline takes words with and without an image; clips are drawn with their sound, which is left out."""

    name = "kandinsky6"
    denoiser_class = Kandinsky6Transformer3DModel
    configs = MappingProxyType({"kandinsky6-pro": PRO})
    output_parts = ("out_layer", "audio_out_layer")
    texts = MappingProxyType({"encoder_hidden_states": (TEXT_TOKENS, "in_text_dim")})

    def input_shapes(self, denoiser: nn.Module, size: ModelInput) -> dict[str, tuple[int, ...]]:
        """With the sound of a clip at the pipeline's default rate."""
        config: Any = denoiser.config
        sounds = math.ceil((4 * (size.frames - 1) + 1) / FRAMES_PER_SECOND * SOUND_PER_SECOND)
        return super().input_shapes(denoiser, size) | {
            "encoder_attention_mask": (size.batch, TEXT_TOKENS),
            "audio_hidden_states": (size.batch, sounds, config.in_audio_dim),
        }


FAMILY = Kandinsky6()
