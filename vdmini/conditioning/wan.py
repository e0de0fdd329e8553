"""Wan's clips: latents of a causal video VAE, and a text as UMT5's embeddings."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from torch import Tensor

from vdmini.conditioning import Conditioning
from vdmini.conditioning.transformer import TransformerConditioning
from vdmini.models.wan import FAMILY, TEXT_TOKENS


class WanConditioning(TransformerConditioning):
    """Embeddings are zero after the prompt's last token."""

    family = FAMILY
    arguments = MappingProxyType({"prompt_embeds": "encoder_hidden_states"})
    prompt_options = MappingProxyType({"do_classifier_free_guidance": False, "max_sequence_length": TEXT_TOKENS})

    def condition_embedding(self, conditions: Mapping[str, Tensor]) -> Tensor:
        """The mean of the prompt's own tokens, B E float32."""
        embeds = conditions["prompt_embeds"].float()
        tokens = embeds.any(2).sum(1, keepdim=True)
        return embeds.sum(1) / tokens.clamp(min=1)


CONDITIONING: Conditioning = WanConditioning()
