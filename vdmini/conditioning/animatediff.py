"""AnimateDiff's clips: frames of Stable Diffusion's VAE, and a text as CLIP's states."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import torch
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from torch import Tensor, nn

from vdmini.conditioning import Conditioning
from vdmini.conditioning.base import EncodeSettings, TrainingClip
from vdmini.conditioning.pixels import encode_frames
from vdmini.models.animatediff import FAMILY


class AnimateDiffConditioning(Conditioning):
    """Every frame is given the text, "context" N E, again."""

    family = FAMILY
    arguments = MappingProxyType({"context": "encoder_hidden_states"})

    @torch.no_grad()
    def encode_clip(
        self, pipeline: DiffusionPipeline, clip: TrainingClip, settings: EncodeSettings
    ) -> dict[str, Tensor]:
        """Encode a clip frame by frame; "latents" T C H W are VAE means times the scaling factor.

        Raises ValueError as `clip_pixels` does.
        """
        latents = encode_frames(pipeline, clip, self.family.pixel_step(pipeline))
        return {"latents": latents, **self.encode_prompt(pipeline, clip.prompt)}

    @torch.no_grad()
    def encode_prompt(self, pipeline: DiffusionPipeline, prompt: str) -> dict[str, Tensor]:
        run: Any = pipeline
        context = run.encode_prompt([prompt], run._execution_device, 1, False)[0]
        return {"context": context[0].float().cpu()}

    def denoiser_inputs(
        self, denoiser: nn.Module, latents: Tensor, timesteps: Tensor, conditions: Mapping[str, Tensor]
    ) -> dict[str, Any]:
        dtype: Any = denoiser.dtype
        context = conditions["context"].to(dtype).repeat_interleave(latents.shape[1], dim=0)
        return {
            "sample": latents.transpose(1, 2).to(dtype),
            "timestep": timesteps,
            "encoder_hidden_states": context,
        }

    def prediction(self, output: Any, latents: Tensor) -> Tensor:
        return output.sample.transpose(1, 2)

    def condition_embedding(self, conditions: Mapping[str, Tensor]) -> Tensor:
        """The mean of the context's tokens, B E float32."""
        return conditions["context"].float().mean(1)

    def encoder_features(self, denoiser: nn.Module, inputs: Mapping[str, Any]) -> list[Tensor]:
        """The output of each down stage, (B T) C H W."""
        net: Any = denoiser
        sample, context = inputs["sample"], inputs["encoder_hidden_states"]
        batch, frames = sample.shape[0], sample.shape[2]
        embedding = net.time_embedding(net.time_proj(inputs["timestep"].expand(batch)).to(sample.dtype))
        embedding = embedding.repeat_interleave(frames, dim=0)
        hidden = net.conv_in(sample.transpose(1, 2).flatten(0, 1))
        features = []
        for stage in net.down_blocks:
            attends = {"encoder_hidden_states": context} if getattr(stage, "has_cross_attention", False) else {}
            hidden, _ = stage(hidden, temb=embedding, num_frames=frames, **attends)
            features.append(hidden)
        return features


CONDITIONING: Conditioning = AnimateDiffConditioning()
