"""The clips of VideoCrafter2 and T2V-Turbo-v2: frames of Stable Diffusion's VAE, a text and a frame rate."""

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
from vdmini.models.videocrafter import FAMILY
from vdmini.models.videocrafter_pipeline import TURBO_GUIDANCE, guidance_embedding

# What T2V-Turbo-v2's pipeline embeds: motion guidance in the noisier half of the schedule, none in the other.
MOTION_GUIDANCE = 0.05
MOTION_TIMESTEP = 500


class VideoCrafterConditioning(Conditioning):
    """The text is the text encoder's states, "context" N E."""

    family = FAMILY
    arguments = MappingProxyType({"context": "encoder_hidden_states", "fps": "fps"})
    texts = ("context",)

    @torch.no_grad()
    def encode_clip(
        self, pipeline: DiffusionPipeline, clip: TrainingClip, settings: EncodeSettings
    ) -> dict[str, Tensor]:
        """Encode a clip frame by frame; "latents" T C H W are VAE means times the scaling factor.

        Raises ValueError as `clip_pixels` does.
        """
        run: Any = pipeline
        return {
            "latents": encode_frames(run, clip, self.family.latent_compression(run.vae)[1]),
            **self.encode_prompt(pipeline, clip.prompt),
            "fps": torch.tensor(float(settings.frames_per_second)),
        }

    @torch.no_grad()
    def encode_prompt(self, pipeline: DiffusionPipeline, prompt: str) -> dict[str, Tensor]:
        run: Any = pipeline
        return {"context": run._encode_text([prompt])[0].float().cpu()}

    def denoiser_inputs(
        self, denoiser: nn.Module, latents: Tensor, timesteps: Tensor, conditions: Mapping[str, Tensor]
    ) -> dict[str, Any]:
        """A network with guidance embeddings gets those of "guidance", 7.5 without it, and of motion guidance.

        The latter is what T2V-Turbo-v2's pipeline has at each timestep.
        """
        config: Any = denoiser.config
        dtype: Any = denoiser.dtype
        inputs = {
            "sample": latents.transpose(1, 2).to(dtype),
            "timestep": timesteps,
            "encoder_hidden_states": conditions["context"].to(dtype),
            "fps": conditions["fps"],
        }
        if config.time_cond_dim is not None:
            default = torch.full_like(timesteps, TURBO_GUIDANCE, dtype=torch.float32)
            scales = conditions.get("guidance", default)
            inputs["timestep_cond"] = guidance_embedding(scales, config.time_cond_dim).to(inputs["sample"])
        if config.motion_cond_dim is not None:
            motion = torch.where(timesteps >= MOTION_TIMESTEP, MOTION_GUIDANCE, 0.0)
            inputs["motion_cond"] = guidance_embedding(motion, config.motion_cond_dim).to(inputs["sample"])
        return inputs

    def prediction(self, output: Any, latents: Tensor) -> Tensor:
        return output.sample.transpose(1, 2)

    def condition_embedding(self, conditions: Mapping[str, Tensor]) -> Tensor:
        """The mean of the context's tokens, B E float32."""
        return conditions["context"].float().mean(1)

    def encoder_features(self, denoiser: nn.Module, inputs: Mapping[str, Any]) -> list[Tensor]:
        """The output of each down stage, (B T) C H W."""
        net: Any = denoiser
        features: list[Tensor] = net.encode(inputs["sample"], *net.conditions(**inputs))[0]
        return features


CONDITIONING: Conditioning = VideoCrafterConditioning()
