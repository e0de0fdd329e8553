"""Train the embedded VAE on drawn frames."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import AutoencoderKL, AutoencoderKLTemporalDecoder
from torch import Tensor
from torch.nn.functional import avg_pool2d

from vdmini_bench.embedded.architecture import build_vae
from vdmini_bench.embedded.training_loop import half_where_fast, train_steps

FRAMES_PER_STEP = 10
CLIP_LENGTHS = (5, 10)
KL_WEIGHT = 1e-4


def train_vae(clips: Tensor, steps: int, checkpoint: Path, device: torch.device) -> AutoencoderKLTemporalDecoder:
    """Train the VAE for `steps` on `clips` N T C H W uint8; returns it in eval mode with its scaling factor set."""
    torch.manual_seed(0)
    vae = build_vae().to(device)

    def loss_of_step(step: int) -> Tensor:
        length = CLIP_LENGTHS[step // 2 % len(CLIP_LENGTHS)]
        start = int(torch.randint(0, clips.shape[1] - length + 1, ()))
        chosen = torch.randint(0, len(clips), (FRAMES_PER_STEP // length,))
        frames = clips[chosen, start : start + length].flatten(0, 1).to(device).float() / 127.5 - 1
        if step % 2:
            frames = frames.flip(-1)
        with half_where_fast(device):
            posterior = vae.encode(frames).latent_dist
            decoded = vae.decode(posterior.sample(), num_frames=length).sample.float()
        # The decoder learns to copy colours from the frame before; the first frame has none and must count by itself.
        loss = reconstruction_loss(decoded, frames) + reconstruction_loss(decoded[::length], frames[::length])
        return loss + KL_WEIGHT * posterior.kl().mean() / posterior.mean[0].numel()

    train_steps(vae, loss_of_step, steps=steps, learning_rate=1e-3, checkpoint=checkpoint)
    set_scale(vae, clips)
    return vae


def set_scale(vae: AutoencoderKL | AutoencoderKLTemporalDecoder, clips: Tensor) -> None:
    """Put a VAE in eval mode, with the factor that brings latents of `clips` N T C H W uint8 to a deviation of 1."""
    vae.eval()
    with torch.no_grad():
        pixels = (clip.to(vae.device).float() / 127.5 - 1 for clip in clips[:64])
        sample = torch.cat([vae.encode(frames).latent_dist.mean for frames in pixels])
    vae.register_to_config(scaling_factor=round(1 / float(sample.std()), 5))


def reconstruction_loss(decoded: Tensor, frames: Tensor) -> Tensor:
    """Absolute error of pixels, of their differences (edges) and of 8x8 means (overall colour): both B C H W."""
    error = decoded - frames
    across = (error[..., 1:] - error[..., :-1]).abs().mean()
    down = (error[..., 1:, :] - error[..., :-1, :]).abs().mean()
    return error.abs().mean() + 0.5 * (across + down) + avg_pool2d(error, 8).abs().mean()
