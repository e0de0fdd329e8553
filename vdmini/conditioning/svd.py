"""Stable Video Diffusion's clips: their first frame, noised, is the condition."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import torch
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from PIL import Image
from torch import Tensor, nn

from vdmini.blocks import ModelInput
from vdmini.conditioning import Conditioning
from vdmini.conditioning.base import EncodeSettings, TrainingClip
from vdmini.conditioning.pixels import clip_pixels, encoding_precision
from vdmini.models.svd import FAMILY


class SvdConditioning(Conditioning):
    """SVD is guided by its image, not by text."""

    family = FAMILY
    arguments = MappingProxyType({"embeddings": "encoder_hidden_states", "time_ids": "added_time_ids"})
    texts = ()

    @torch.no_grad()
    def encode_clip(
        self, pipeline: DiffusionPipeline, clip: TrainingClip, settings: EncodeSettings
    ) -> dict[str, Tensor]:
        """Encode a clip just as the pipeline encodes its condition image, the first frame.

        "latents" T C H W are VAE means times the scaling factor, "condition" C H W without it, as SVD feeds them, of
        the first frame plus `noise_strength` times noise from the clip's seed. "embeddings" 1 E come from the image
        encoder, "time_ids" 3 hold (fps - 1, motion bucket, noise strength). Raises ValueError as `clip_pixels` does.
        """
        run: Any = pipeline
        device = run._execution_device
        frames = clip_pixels(clip, multiple=run.vae_scale_factor).to(device)
        noise = torch.randn(frames[:1].shape, generator=torch.Generator().manual_seed(clip.seed)).to(device)
        with encoding_precision(run.vae) as dtype:
            latents = run.vae.encode(frames.to(dtype)).latent_dist.mode()
            # The noise is added in float32, as the pipeline does, and only the sum is rounded.
            noisy = (frames[:1] + settings.noise_strength * noise).to(dtype)
            condition = run.vae.encode(noisy).latent_dist.mode()[0]
        embeddings = run._encode_image([Image.fromarray(clip.frames[0])], device, 1, False)[0]
        return {
            "latents": latents.float().cpu().contiguous() * run.vae.config.scaling_factor,
            "condition": condition.float().cpu().contiguous(),
            "embeddings": embeddings.float().cpu(),
            "time_ids": torch.tensor(
                [settings.frames_per_second - 1, settings.motion_bucket, settings.noise_strength], dtype=torch.float32
            ),
        }

    def clip_shapes(self, denoiser: nn.Module, size: ModelInput) -> dict[str, tuple[int, ...]]:
        config: Any = denoiser.config
        shapes = super().clip_shapes(denoiser, size)
        latents = (size.frames, config.out_channels, size.height, size.width)
        return {"latents": latents, "condition": latents[1:], **{name: shapes[name] for name in self.arguments}}

    def denoiser_inputs(
        self, denoiser: nn.Module, latents: Tensor, timesteps: Tensor, conditions: Mapping[str, Tensor]
    ) -> dict[str, Any]:
        """The condition goes beside every frame, over channels."""
        dtype: Any = denoiser.dtype
        condition = conditions["condition"][:, None].expand(-1, latents.shape[1], -1, -1, -1)
        return {
            "sample": torch.cat([latents.to(dtype), condition.to(dtype)], dim=2),
            "timestep": timesteps,
            **{argument: conditions[name].to(dtype) for name, argument in self.arguments.items()},
        }

    def prediction(self, output: Any, latents: Tensor) -> Tensor:
        return output.sample

    def condition_embedding(self, conditions: Mapping[str, Tensor]) -> Tensor:
        """The image embedding, B E float32."""
        return conditions["embeddings"].float().mean(1)

    def encoder_features(self, denoiser: nn.Module, inputs: Mapping[str, Any]) -> list[Tensor]:
        """The output of each down stage, (B T) C H W."""
        net: Any = denoiser
        sample, context = inputs["sample"], inputs["encoder_hidden_states"]
        batch, frames = sample.shape[:2]
        embedding = net.time_embedding(net.time_proj(inputs["timestep"].expand(batch)).to(sample.dtype))
        time_ids = net.add_time_proj(inputs["added_time_ids"].flatten()).reshape(batch, -1).to(embedding.dtype)
        embedding = (embedding + net.add_embedding(time_ids)).repeat_interleave(frames, dim=0)
        context = context.repeat_interleave(frames, dim=0)
        hidden = net.conv_in(sample.flatten(0, 1))
        video_frames = torch.zeros(batch, frames, dtype=hidden.dtype, device=hidden.device)
        features = []
        for stage in net.down_blocks:
            attends = {"encoder_hidden_states": context} if getattr(stage, "has_cross_attention", False) else {}
            hidden, _ = stage(hidden, embedding, image_only_indicator=video_frames, **attends)
            features.append(hidden)
        return features


CONDITIONING: Conditioning = SvdConditioning()
