"""Train the embedded VAE on drawn frames."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, AutoencoderKLTemporalDecoder
from torch import Tensor
from torch.nn.functional import avg_pool2d

from vdmini_bench.embedded.architecture import build_vae
from vdmini_bench.embedded.training_loop import half_where_fast, train_steps

FRAMES_PER_STEP = 10
CLIP_LENGTHS = (5, 10)
KL_WEIGHT = 1e-4
# What a thing's pixels count more, and how far from the median a channel of them is, of 2.
THING_WEIGHT, THING_FROM = 3, 0.35
# How often a clip is one of the hard ones.
HARD_SHARE = 0.4
# What is added in `free_last_normalisation`, in deviations of a group, and how little deviations vary when it has been.
REFERENCE, FREE_BELOW = 3.0, 0.1


def train_vae(clips: Tensor, steps: int, checkpoint: Path, device: torch.device) -> AutoencoderKLTemporalDecoder:
    """Train the VAE for `steps` on `clips` N T C H W uint8; returns it in eval mode with its scaling factor set."""
    torch.manual_seed(0)
    vae = build_vae().to(device)

    def loss_of_step(step: int) -> Tensor:
        length, frames = _frames_of_step(clips, step, device)
        with half_where_fast(device):
            posterior = vae.encode(frames).latent_dist
            decoded = vae.decode(posterior.sample(), num_frames=length).sample.float()
        # The decoder learns to copy colours from the frame before; the first frame has none and must count by itself.
        loss = reconstruction_loss(decoded, frames) + reconstruction_loss(decoded[::length], frames[::length])
        return loss + KL_WEIGHT * posterior.kl().mean() / posterior.mean[0].numel()

    train_steps(vae, loss_of_step, steps=steps, learning_rate=1e-3, checkpoint=checkpoint)
    set_scale(vae, clips)
    return vae


def finetune_decoder(
    vae: AutoencoderKLTemporalDecoder, clips: Tensor, steps: int, checkpoint: Path, hard: Tensor | None = None
) -> None:
    """Train the decoder alone for `steps` on `clips` N T C H W uint8, in place: what a denoiser learned stays valid.

    `hard` are the places of clips that it is shown more of.
    """
    free_last_normalisation(vae, clips)
    vae.requires_grad_(False)
    vae.decoder.requires_grad_(True)

    def loss_of_step(step: int) -> Tensor:
        length, frames = _frames_of_step(clips, step, vae.device, hard)
        with half_where_fast(vae.device):
            decoded = vae.decode(vae.encode(frames).latent_dist.sample(), num_frames=length).sample.float()
        # The first frame has none before it, the last none after it.
        ends = [each.unflatten(0, (-1, length))[:, [0, -1]].flatten(0, 1) for each in (decoded, frames)]
        return thing_loss(decoded, frames) + thing_loss(*ends)

    train_steps(vae.decoder, loss_of_step, steps=steps, learning_rate=1e-3, checkpoint=checkpoint)


@torch.no_grad()
def free_last_normalisation(vae: AutoencoderKLTemporalDecoder, clips: Tensor) -> None:
    """Let how strong a colour is pass the decoder's last normalisation, in place.

    It divides each group of three channels by its deviation in that very frame, and a thing of a strong colour is what
    deviates. A constant and its opposite, added to two of the three and taken out behind the normalisation, make that
    deviation much the same for all frames. Nothing is done where it is that already.
    """
    decoder, seen = vae.decoder, list[Tensor]()
    norm: Any = decoder.conv_norm_out
    hook = norm.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    for clip in clips[:40]:
        vae.decode(vae.encode(clip.to(vae.device).float() / 127.5 - 1).latent_dist.mean, num_frames=len(clip))
    hook.remove()
    groups = torch.cat(seen).unflatten(1, (norm.num_groups, -1))
    of_frames = _deviations(groups)
    if float((of_frames.std(0) / of_frames.mean(0)).mean()) < FREE_BELOW:
        return
    deviation, size = of_frames.mean(0), groups.shape[2]
    added = torch.zeros_like(groups[0, :, :, 0, 0])
    added[:, 0], added[:, 1] = REFERENCE * deviation, -REFERENCE * deviation
    wider = _deviations(groups + added[..., None, None]).mean(0).repeat_interleave(size)
    last: Any = decoder.up_blocks[-1].resnets[-1]
    share = torch.sigmoid(last.time_mixer.mix_factor)
    last.temporal_res_block.conv2.bias += added.flatten() / share
    norm.weight *= wider / deviation.repeat_interleave(size)
    norm.bias -= norm.weight * added.flatten() / wider


def _deviations(groups: Tensor) -> Tensor:
    """What a normalisation divides each group of each frame by: frames, groups, channels, H, W to frames, groups."""
    return groups.var((2, 3, 4), unbiased=False).sqrt()


def set_scale(vae: AutoencoderKL | AutoencoderKLTemporalDecoder, clips: Tensor) -> None:
    """Put a VAE in eval mode, with the factor that brings latents of `clips` N T C H W uint8 to a deviation of 1."""
    vae.eval()
    with torch.no_grad():
        pixels = (clip.to(vae.device).float() / 127.5 - 1 for clip in clips[:64])
        sample = torch.cat([vae.encode(frames).latent_dist.mean for frames in pixels])
    vae.register_to_config(scaling_factor=round(1 / float(sample.std()), 5))


def _frames_of_step(clips: Tensor, step: int, device: torch.device, hard: Tensor | None = None) -> tuple[int, Tensor]:
    """Frames B C H W in [-1, 1] of random parts of `clips`, mirrored at every other step, and frames a part.

    Of each part a clip of the places `hard`, where given, in `HARD_SHARE` of cases.
    """
    length = CLIP_LENGTHS[step // 2 % len(CLIP_LENGTHS)]
    start = int(torch.randint(0, clips.shape[1] - length + 1, ()))
    chosen = torch.randint(0, len(clips), (FRAMES_PER_STEP // length,))
    if hard is not None:
        others = hard[torch.randint(0, len(hard), chosen.shape)]
        chosen = torch.where(torch.rand(chosen.shape) < HARD_SHARE, others, chosen)
    frames = clips[chosen, start : start + length].flatten(0, 1).to(device).float() / 127.5 - 1
    return length, frames.flip(-1) if step % 2 else frames


def reconstruction_loss(decoded: Tensor, frames: Tensor) -> Tensor:
    """Absolute error of pixels, of their differences (edges) and of 8x8 means (overall colour): both B C H W."""
    error = decoded - frames
    return error.abs().mean() + 0.5 * _edge_error(error) + avg_pool2d(error, 8).abs().mean()


def thing_loss(decoded: Tensor, frames: Tensor) -> Tensor:
    """The same with the pixels of things counted four times, and 4x4 means squared as well: both B C H W.

    A thing is what lies far from its frame's median colour. Absolute errors alone are content with the wrong one of two
    colours.
    """
    median = frames.flatten(2).median(-1).values[..., None, None]
    weight = 1 + THING_WEIGHT * ((frames - median).abs().amax(1, keepdim=True) > THING_FROM)
    error = decoded - frames
    means = avg_pool2d(weight * error, 4)
    return (weight * error).abs().mean() + 0.5 * _edge_error(error) + means.abs().mean() + means.square().mean()


def _edge_error(error: Tensor) -> Tensor:
    across, down = error[..., 1:] - error[..., :-1], error[..., 1:, :] - error[..., :-1, :]
    return across.abs().mean() + down.abs().mean()
