"""LTX-Video's clips: latents of a causal video VAE as tokens, their frame rate, and a text as T5's embeddings."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import torch
from diffusers.pipelines.ltx.pipeline_ltx import LTXPipeline
from diffusers.pipelines.ltx.pipeline_ltx_image2video import LTXImageToVideoPipeline
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from PIL import Image
from torch import Tensor, nn

from vdmini.blocks import ModelInput
from vdmini.conditioning import Conditioning
from vdmini.conditioning.base import EncodeSettings, TrainingClip
from vdmini.conditioning.transformer import TransformerConditioning, animates, mean_of_tokens
from vdmini.errors import ModelLoadError
from vdmini.models.ltx import FAMILY


class LtxConditioning(TransformerConditioning):
    """Places in a video count in seconds and pixels: "rope_scale" 3 says how many of them a latent spans."""

    family = FAMILY
    arguments = MappingProxyType({"prompt_embeds": "encoder_hidden_states", "prompt_mask": "encoder_attention_mask"})

    def encode_clip(
        self, pipeline: DiffusionPipeline, clip: TrainingClip, settings: EncodeSettings
    ) -> dict[str, Tensor]:
        """As all transformers' clips, with "rope_scale"; raises ModelLoadError for a pipeline with other places."""
        if not isinstance(pipeline, LTXPipeline | LTXImageToVideoPipeline):
            raise ModelLoadError(
                f"{type(pipeline).__name__}, which counts places in a video otherwise, is not yet distilled: give an"
                " LTXPipeline or LTXImageToVideoPipeline"
            )
        frames, pixels = self.family.latent_compression(pipeline.vae)
        scale = torch.tensor([frames / settings.frames_per_second, pixels, pixels], dtype=torch.float32)
        return {**super().encode_clip(pipeline, clip, settings), "rope_scale": scale}

    def image_conditions(self, run: Any, picture: Image.Image, prepared: Any, latents: Tensor) -> dict[str, Tensor]:
        tokens = prepared[0][0].unflatten(0, (-1, *latents.shape[2:]))
        return {"first_frame": tokens[:1].permute(0, 3, 1, 2)}

    def times_frames(self, run: Any) -> bool:
        return animates(run)

    def clip_shapes(self, denoiser: nn.Module, size: ModelInput) -> dict[str, tuple[int, ...]]:
        return {**super().clip_shapes(denoiser, size), "rope_scale": (3,)}

    def finish(self, inputs: dict[str, Any], denoiser: nn.Module, conditions: Mapping[str, Tensor]) -> dict[str, Any]:
        video = inputs["hidden_states"]
        return {
            **inputs,
            "hidden_states": video.flatten(2).transpose(1, 2).contiguous(),
            "encoder_attention_mask": inputs["encoder_attention_mask"].bool(),
            **dict(zip(("num_frames", "height", "width"), video.shape[2:], strict=True)),
            # The clips of a run share their frame rate.
            "rope_interpolation_scale": tuple(conditions["rope_scale"][0].unbind()),
        }

    def prediction(self, output: Any, latents: Tensor) -> Tensor:
        tokens: Tensor = output.sample
        return tokens.unflatten(1, (-1, *latents.shape[3:])).permute(0, 1, 4, 2, 3)[:, -latents.shape[1] :]

    def latent_size(self, inputs: Mapping[str, Any]) -> tuple[int, int, int]:
        return inputs["num_frames"], inputs["height"], inputs["width"]

    def condition_embedding(self, conditions: Mapping[str, Tensor]) -> Tensor:
        """The mean of the prompt's own tokens, B E float32."""
        return mean_of_tokens(conditions["prompt_embeds"], conditions["prompt_mask"])


CONDITIONING: Conditioning = LtxConditioning()
