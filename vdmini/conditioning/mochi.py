"""Mochi's clips: latents of a causal video VAE, and a text as T5's embeddings.

Mochi counts timesteps up to the data and predicts the way there, which its task is told by the option `inverted`.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from torch import Tensor, nn

from vdmini.conditioning import Conditioning
from vdmini.conditioning.transformer import TransformerConditioning, mean_of_tokens
from vdmini.models.mochi import FAMILY


class MochiConditioning(TransformerConditioning):
    """The prompt's own tokens are those of the mask."""

    family = FAMILY
    arguments = MappingProxyType({"prompt_embeds": "encoder_hidden_states", "prompt_mask": "encoder_attention_mask"})

    def finish(self, inputs: dict[str, Any], denoiser: nn.Module, conditions: Mapping[str, Tensor]) -> dict[str, Any]:
        return {**inputs, "encoder_attention_mask": inputs["encoder_attention_mask"].bool()}

    def condition_embedding(self, conditions: Mapping[str, Tensor]) -> Tensor:
        """The mean of the prompt's own tokens, B E float32."""
        return mean_of_tokens(conditions["prompt_embeds"], conditions["prompt_mask"])


CONDITIONING: Conditioning = MochiConditioning()
