"""HunyuanVideo's clips: latents of a causal video VAE, and a text as Llama's and as CLIP's embeddings."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from vdmini.conditioning import Conditioning
from vdmini.conditioning.transformer import TransformerConditioning
from vdmini.models.hunyuanvideo import FAMILY

# The pipeline's default.
GUIDANCE = 6.0


class HunyuanVideoConditioning(TransformerConditioning):
    """The published model has its guidance embedded and needs no empty prompt."""

    family = FAMILY
    arguments = MappingProxyType(
        {
            "prompt_embeds": "encoder_hidden_states",
            "pooled_prompt": "pooled_projections",
            "prompt_mask": "encoder_attention_mask",
        }
    )
    prompt_options = MappingProxyType({})

    def finish(self, inputs: dict[str, Any], denoiser: nn.Module, conditions: Mapping[str, Tensor]) -> dict[str, Any]:
        """A network with a guidance embedding gets a thousand times "guidance", 6 without it."""
        config: Any = denoiser.config
        if config.guidance_embeds:
            default = torch.full_like(inputs["timestep"], GUIDANCE, dtype=torch.float32)
            inputs["guidance"] = conditions.get("guidance", default).to(inputs["hidden_states"].dtype) * 1000
        return inputs

    def condition_embedding(self, conditions: Mapping[str, Tensor]) -> Tensor:
        """CLIP's embedding of the prompt, B E float32."""
        return conditions["pooled_prompt"].float()


CONDITIONING: Conditioning = HunyuanVideoConditioning()
