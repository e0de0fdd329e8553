"""HunyuanVideo's clips: latents of a causal video VAE, and a text as Llama's and as CLIP's embeddings.

Where an image is animated, Llama reads it with the text.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from vdmini.conditioning import Conditioning
from vdmini.conditioning.transformer import TransformerConditioning
from vdmini.models.hunyuanvideo import FAMILY

# The defaults of its pipelines, from text and from an image.
GUIDANCE, IMAGE_GUIDANCE = 6.0, 1.0


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

    def prompt_options(self, run: Any, picture: Image.Image | None) -> Mapping[str, object]:
        if run.transformer.config.image_condition_type is None:
            return {}
        if picture is None:
            # As in the pipeline's own second pass. Whatever the size, Llama sees the same.
            return {"image": Image.new("RGB", (64, 64))}
        replaces = run.transformer.config.image_condition_type == "token_replace"
        return {"image": picture, "image_embed_interleave": 4 if replaces else 2}

    def image_conditions(self, run: Any, picture: Image.Image, prepared: Any, latents: Tensor) -> dict[str, Tensor]:
        kind = run.transformer.config.image_condition_type
        if kind is None:  # as SkyReels V1's
            return super().image_conditions(run, picture, prepared, latents)
        # The image is there for every frame, and the first of them counts.
        image = self.frames_of(prepared[1])
        if kind == "token_replace":
            return {"first_frame": image[:1]}
        first = torch.zeros(len(image), 1, 1, 1, device=image.device)
        first[0] = 1
        return {"condition": torch.cat([image * first, first.expand_as(image[:, :1])], dim=1)}

    def finish(self, inputs: dict[str, Any], denoiser: nn.Module, conditions: Mapping[str, Tensor]) -> dict[str, Any]:
        """A network with a guidance embedding gets a thousand times "guidance", its pipeline's default without it."""
        config: Any = denoiser.config
        if config.guidance_embeds:
            scale = GUIDANCE if config.image_condition_type is None else IMAGE_GUIDANCE
            default = torch.full_like(inputs["timestep"], scale, dtype=torch.float32)
            inputs["guidance"] = conditions.get("guidance", default).to(inputs["hidden_states"].dtype) * 1000
        return inputs

    def condition_embedding(self, conditions: Mapping[str, Tensor]) -> Tensor:
        """CLIP's embedding of the prompt, B E float32."""
        return conditions["pooled_prompt"].float()


CONDITIONING: Conditioning = HunyuanVideoConditioning()
