"""CogVideoX's clips: latents of a causal video VAE, and a text as T5's embeddings."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from diffusers.models.embeddings import get_3d_rotary_pos_embed
from diffusers.pipelines.cogvideo.pipeline_cogvideox import get_resize_crop_region_for_grid
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from torch import Tensor, nn

from vdmini.conditioning import Conditioning
from vdmini.conditioning.base import EncodeSettings, TrainingClip
from vdmini.conditioning.transformer import TransformerConditioning
from vdmini.errors import ModelLoadError
from vdmini.models.cogvideox import FAMILY


class CogVideoXConditioning(TransformerConditioning):
    """The 5B model also gets its rotary embedding, cosines and sines."""

    family = FAMILY
    image_dtype = None
    arguments = MappingProxyType({"prompt_embeds": "encoder_hidden_states"})

    def encode_clip(
        self, pipeline: DiffusionPipeline, clip: TrainingClip, settings: EncodeSettings
    ) -> dict[str, Tensor]:
        """As all transformers' clips; raises ModelLoadError for CogVideoX 1.5."""
        run: Any = pipeline
        if run.transformer.config.patch_size_t is not None:
            raise ModelLoadError(
                "CogVideoX 1.5, whose patches span several latent frames, can be pruned and sampled, not yet distilled:"
                " give CogVideoX 2B or 5B"
            )
        return super().encode_clip(pipeline, clip, settings)

    def finish(self, inputs: dict[str, Any], denoiser: nn.Module, conditions: Mapping[str, Tensor]) -> dict[str, Any]:
        config: Any = denoiser.config
        if config.use_rotary_positional_embeddings:
            _, frames, _, height, width = inputs["hidden_states"].shape
            grid = (height // config.patch_size, width // config.patch_size)
            base = (config.sample_width // config.patch_size, config.sample_height // config.patch_size)
            inputs["image_rotary_emb"] = get_3d_rotary_pos_embed(
                embed_dim=config.attention_head_dim,
                crops_coords=get_resize_crop_region_for_grid(grid, *base),
                grid_size=grid,
                temporal_size=frames,
                device=inputs["hidden_states"].device,
            )
        return inputs

    def condition_embedding(self, conditions: Mapping[str, Tensor]) -> Tensor:
        """The mean of the prompt's tokens with its padding, which CogVideoX does not mask either: B E float32."""
        return conditions["prompt_embeds"].float().mean(1)


CONDITIONING: Conditioning = CogVideoXConditioning()
