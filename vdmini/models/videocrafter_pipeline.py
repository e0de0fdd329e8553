"""The pipeline of VideoCrafter2 and T2V-Turbo-v2: a text becomes a clip."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import diffusers
import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.embeddings import get_timestep_embedding
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_lcm import LCMScheduler
from diffusers.utils.outputs import BaseOutput
from diffusers.utils.torch_utils import randn_tensor
from numpy.typing import NDArray
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from vdmini.models.videocrafter_unet import VideoCrafterUNet

# T2V-Turbo-v2 was distilled over this many of the 1000 timesteps: 4, 9, ..., 999.
CONSISTENCY_STEPS = 200
TURBO_GUIDANCE = 7.5
CLASSIFIER_FREE_GUIDANCE = 12.0
# VideoCrafter2 was trained on latents that shrink to 0.7 of their size within the first 400 timesteps.
SMALLEST_SCALE = 0.7
SHRINKING_TIMESTEPS = 400

_NOISE_SCHEDULE: dict[str, Any] = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "clip_sample": False,
    "prediction_type": "epsilon",
}


@dataclass
class VideoCrafterPipelineOutput(BaseOutput):
    """`frames`: B T H W C float32 RGB in [0, 1]."""

    frames: NDArray[np.float32]


class VideoCrafterPipeline(DiffusionPipeline):
    """Draws clips from texts; its scheduler chooses how.

    An LCMScheduler samples a consistency model, T2V-Turbo-v2 or its student, with embedded guidance; a DDIMScheduler
    samples VideoCrafter2 with classifier-free guidance. `text_encoder` and `tokenizer` are those of Stable Diffusion 2:
    OpenCLIP ViT-H up to its penultimate layer, with the final norm.
    """

    # diffusers looks for a saved class in the module of this name.
    __module__ = "vdmini"
    model_cpu_offload_seq = "text_encoder->unet->vae"

    def __init__(
        self,
        unet: VideoCrafterUNet,
        vae: AutoencoderKL,
        text_encoder: CLIPTextModel,
        tokenizer: CLIPTokenizer,
        scheduler: LCMScheduler | DDIMScheduler,
    ) -> None:
        super().__init__()
        self.register_modules(unet=unet, vae=vae, text_encoder=text_encoder, tokenizer=tokenizer, scheduler=scheduler)

    @torch.no_grad()
    def __call__(
        self,
        prompt: Sequence[str],
        generator: Sequence[torch.Generator] | torch.Generator,
        height: int = 320,
        width: int = 512,
        num_frames: int = 16,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        fps: float = 8,
        motion_guidance: float = 0.05,
        motion_fraction: float = 0.5,
        eta: float = 1.0,
    ) -> VideoCrafterPipelineOutput:
        """Draw one clip of `num_frames` x `height` x `width` pixels for each prompt, its noise from its own generator.

        Steps default to 16 for a consistency model and 50 for DDIM, guidance to 7.5 and 12. `motion_guidance` is
        embedded in the first `motion_fraction` of the schedule and 0 in the rest (T2V-Turbo-v2); `eta` is DDIM's.
        Returns B T H W C float32 RGB in [0, 1]. Raises ValueError.
        """
        generators = [generator] if isinstance(generator, torch.Generator) else [*generator]
        reduction = 2 ** (len(self.vae.config.block_out_channels) - 1)
        if len(prompt) != len(generators) or not prompt:
            raise ValueError(f"{len(prompt)} prompts need as many generators, found {len(generators)}")
        if height % reduction or width % reduction:
            raise ValueError(f"{height}x{width} pixels do not divide by {reduction}, as the VAE needs: choose others")
        consistency = isinstance(self.scheduler, LCMScheduler)
        steps = num_inference_steps or (16 if consistency else 50)
        shape = (len(prompt), self.unet.config.in_channels, num_frames, height // reduction, width // reduction)
        # float32 throughout, whatever the network's own: the noise must not depend on how the network is loaded.
        latents = randn_tensor(shape, generators, self._execution_device, torch.float32)
        if consistency:
            guidance = TURBO_GUIDANCE if guidance_scale is None else guidance_scale
            latents = self._sample_consistency(
                latents, prompt, generators, steps, guidance, fps, motion_guidance, motion_fraction
            )
        else:
            guidance = CLASSIFIER_FREE_GUIDANCE if guidance_scale is None else guidance_scale
            latents = self._sample_ddim(latents, prompt, generators, steps, guidance, fps, eta)
        video = self._decode(latents)
        self.maybe_free_model_hooks()
        return VideoCrafterPipelineOutput(frames=video)

    def _sample_consistency(
        self,
        latents: Tensor,
        prompt: Sequence[str],
        generator: Sequence[torch.Generator],
        steps: int,
        guidance: float,
        fps: float,
        motion_guidance: float,
        motion_fraction: float,
    ) -> Tensor:
        config, context = self.unet.config, self._encode_text(prompt)
        # Here and below on the CPU: schedulers look timesteps up, and on a GPU that waits for all that is queued.
        self.scheduler.set_timesteps(
            timesteps=consistency_timesteps(steps), original_inference_steps=CONSISTENCY_STEPS, device="cpu"
        )
        for timestep in self.progress_bar(self.scheduler.timesteps):
            motion = motion_guidance if timestep >= 1000 * (1 - motion_fraction) else 0.0
            scales = {"timestep_cond": guidance, "motion_cond": motion}
            widths = {"timestep_cond": config.time_cond_dim, "motion_cond": config.motion_cond_dim}
            conditions = {
                name: guidance_embedding(latents.new_full((len(latents),), scales[name]), width).to(context)
                for name, width in widths.items()
                if width
            }
            noise = self._predict(latents, timestep, context, fps, conditions)
            latents = self.scheduler.step(noise, timestep, latents, generator=[*generator]).prev_sample
        return latents

    def _sample_ddim(
        self,
        latents: Tensor,
        prompt: Sequence[str],
        generator: Sequence[torch.Generator],
        steps: int,
        guidance: float,
        fps: float,
        eta: float,
    ) -> Tensor:
        context = self._encode_text(prompt)
        if guidance != 1:
            context = torch.cat([self._encode_text([""] * len(prompt)), context])
        passes = len(context) // len(prompt)
        self.scheduler.set_timesteps(steps, device="cpu")
        for timestep in self.progress_bar(self.scheduler.timesteps):
            predicted = self._predict(torch.cat([latents] * passes), timestep, context, fps, {}).chunk(passes)
            noise = predicted[0] + guidance * (predicted[1] - predicted[0]) if passes > 1 else predicted[0]
            step = self.scheduler.step(noise, timestep, latents, eta=eta, generator=[*generator])
            following = max(int(timestep) - 1000 // steps, 0)
            # DDIM keeps the size of the clean latents; the size they have at the next timestep is another.
            growth = latent_scale(following) / latent_scale(int(timestep)) - 1
            latents = step.prev_sample
            latents = latents + growth * self.scheduler.alphas_cumprod[following].sqrt() * step.pred_original_sample
        return latents

    def _predict(
        self, latents: Tensor, timestep: Tensor, context: Tensor, fps: float, conditions: dict[str, Tensor]
    ) -> Tensor:
        # Filled in on the device, where copying a number to it would wait too.
        time, rate = (torch.full((), value, device=latents.device) for value in (int(timestep), fps))
        noise: Tensor = self.unet(latents.to(context), time, context, fps=rate, **conditions).sample
        return noise.float()

    def _encode_text(self, prompt: Sequence[str]) -> Tensor:
        """The context B N E of prompts, in the denoiser's own type."""
        tokens = self.tokenizer(
            [*prompt],
            padding="max_length",
            max_length=self.text_encoder.config.max_position_embeddings,
            truncation=True,
            return_tensors="pt",
        )
        context: Tensor = self.text_encoder(tokens.input_ids.to(self._execution_device)).last_hidden_state
        return context.to(self.unet.dtype)

    def _decode(self, latents: Tensor) -> NDArray[np.float32]:
        """Pixels B T H W C in [0, 1] of latents B C T H W, one clip at a time, as all at once need much memory."""
        latents = (latents / self.vae.config.scaling_factor).to(self.vae.dtype)
        clips = [self.vae.decode(clip.transpose(0, 1)).sample.float().cpu() for clip in latents]
        video: NDArray[np.float32] = (torch.stack(clips) / 2 + 0.5).clamp(0, 1).permute(0, 1, 3, 4, 2).numpy()
        return video


# diffusers looks for the class that a model_index.json names among its own only.
diffusers.VideoCrafterPipeline = VideoCrafterPipeline


def consistency_scheduler() -> LCMScheduler:
    """The scheduler of T2V-Turbo-v2."""
    return LCMScheduler(**_NOISE_SCHEDULE, original_inference_steps=CONSISTENCY_STEPS, timestep_scaling=10.0)


def ddim_scheduler() -> DDIMScheduler:
    """The scheduler of VideoCrafter2: its timesteps start at 1 and end at the noise level of timestep 0."""
    return DDIMScheduler(**_NOISE_SCHEDULE, set_alpha_to_one=False, steps_offset=1)


def consistency_timesteps(steps: int) -> list[int]:
    """The timesteps of T2V-Turbo-v2 in so many steps, 999, 939, ..., 99 in 16; raises ValueError beyond 1 to 200."""
    if not 1 <= steps <= CONSISTENCY_STEPS:
        raise ValueError(f"{steps} steps are not between 1 and {CONSISTENCY_STEPS}: choose others")
    stride = 1000 // CONSISTENCY_STEPS * (CONSISTENCY_STEPS // steps)
    return [999 - stride * step for step in range(steps)]


def guidance_embedding(scales: Tensor, width: int) -> Tensor:
    """Sinusoids of guidance scales, B x `width` (Kingma et al. 2021, as latent consistency models use them)."""
    return get_timestep_embedding(scales * 1000, width, downscale_freq_shift=1)


def latent_scale(timestep: int) -> float:
    """The size that VideoCrafter2's clean latents have at a timestep: 1 at 0, 0.7 from 399 on."""
    return 1 - (1 - SMALLEST_SCALE) * min(timestep / (SHRINKING_TIMESTEPS - 1), 1)
