"""Train the embedded text-to-video teacher: its VAE of single frames, then its denoiser with its text encoder."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import CLIPTextModel

from vdmini.models.videocrafter import FAMILY
from vdmini.models.videocrafter_unet import VideoCrafterUNet
from vdmini.tasks.epsilon import EpsilonTask
from vdmini.tasks.schedule import TRAINING_TIMESTEPS
from vdmini_bench.data.synthetic import FRAMES_PER_SECOND
from vdmini_bench.embedded.budget import train_for_minutes
from vdmini_bench.embedded.denoiser import encoded_once
from vdmini_bench.embedded.text_to_video import (
    build_frame_vae,
    build_text_denoiser,
    build_text_encoder,
    write_tokenizer,
)
from vdmini_bench.embedded.vae import KL_WEIGHT, reconstruction_loss, set_scale

FRAMES_PER_STEP = 16
CLIPS_PER_STEP = 8
# One step of these is on single frames of as many clips as half its time pays for: five times the captions teach what
# things look like, as images beside clips do in Ho et al. 2022 (arXiv 2204.03458, section 3).
PICTURES_EVERY = 6
PICTURES_PER_STEP = 40
VAE_LEARNING_RATE = 1e-3
LEARNING_RATE = 8e-4
# How much more an error counts where a clip shows its things: they are what the caption is about, and most of a frame's
# error is the background's, of which the caption says little.
THING_WEIGHT = 6.0
# How often training goes without its caption, so that guidance has something to compare with.
CAPTION_DROPOUT = 0.1
VALIDATE_EVERY = 100


@dataclass(frozen=True)
class CaptionedClips:
    """Drawn `clips` N T C H W uint8, their captions, and the `places` N H W bool where each shows a thing."""

    clips: Tensor
    captions: Sequence[str]
    places: Tensor


class TextToVideo(nn.Module):
    """The two networks trained together: the denoiser and the text encoder it attends to."""

    def __init__(self, denoiser: VideoCrafterUNet, text_encoder: CLIPTextModel) -> None:
        super().__init__()
        self.denoiser = denoiser
        self.text_encoder = text_encoder

    def forward(self, noisy: Tensor, timesteps: Tensor, tokens: Tensor) -> Tensor:
        """The noise B T C H W in latents at timesteps B, given tokens B N."""
        context = self.text_encoder(tokens).last_hidden_state
        prediction = self.denoiser(noisy.transpose(1, 2), timesteps, context, fps=float(FRAMES_PER_SECOND))
        predicted: Tensor = prediction.sample.transpose(1, 2)
        return predicted


def train_frame_vae(
    clips: Tensor, minutes: float, checkpoint: Path, device: torch.device, encoder: nn.Module | None = None
) -> AutoencoderKL:
    """Train the VAE for `minutes` on frames of `clips` N T C H W uint8; in eval mode with its scaling factor set.

    It starts from the weights of `encoder` where given, such as the image-to-video teacher's, which saw the same world.
    """
    torch.manual_seed(0)
    vae = build_frame_vae().to(device)
    if encoder is not None:
        vae.encoder.load_state_dict(encoder.state_dict())

    def loss_of_step(step: int) -> Tensor:
        chosen = torch.randint(0, len(clips), (FRAMES_PER_STEP,))
        moments = torch.randint(0, clips.shape[1], (FRAMES_PER_STEP,))
        frames = clips[chosen, moments].to(device).float() / 127.5 - 1
        with torch.autocast(device.type, dtype=torch.bfloat16):
            posterior = vae.encode(frames).latent_dist
            decoded = vae.decode(posterior.sample()).sample.float()
        return reconstruction_loss(decoded, frames) + KL_WEIGHT * posterior.kl().mean() / posterior.mean[0].numel()

    train_for_minutes(vae, loss_of_step, minutes=minutes, learning_rate=VAE_LEARNING_RATE, checkpoint=checkpoint)
    set_scale(vae, clips)
    return vae


def train_text_denoiser(
    drawn: CaptionedClips,
    validation: CaptionedClips,
    vae: AutoencoderKL,
    minutes: float,
    checkpoint: Path,
    device: torch.device,
    initial: TextToVideo | None = None,
) -> TextToVideo:
    """Train for `minutes` on captioned clips; returns the exponential moving average of the networks.

    Prints the average's loss on the validation clips, which are of the same kind, as it goes. Starts from `initial`
    where given; a checkpoint goes before it.
    """
    tokens, empty = _tokens(drawn.captions, checkpoint.parent), _tokens([""], checkpoint.parent)
    latents, importance = encoded_once(vae, drawn.clips, checkpoint.parent), _importance(drawn.places, vae)
    scale = float(vae.config.scaling_factor)
    torch.manual_seed(0)
    # In eval mode from the start: networks this small have nothing to spare for dropout.
    model = (initial or TextToVideo(build_text_denoiser(), build_text_encoder())).to(device).eval()
    average = copy.deepcopy(model).requires_grad_(False)
    task = _task(model)
    validate = _validation(average, validation, vae, checkpoint.parent, device)

    def loss_of_step(step: int) -> Tensor:
        pictures = step % PICTURES_EVERY == 1
        chosen = torch.randint(0, len(latents), (PICTURES_PER_STEP if pictures else CLIPS_PER_STEP,))
        frames = latents[chosen]
        if pictures:
            moments = torch.randint(0, latents.shape[1], (len(chosen),))
            frames = latents[chosen, moments][:, None]
        clean = frames.to(device) * scale
        noise, levels = torch.randn_like(clean), task.draw_levels(len(clean), torch.default_generator).to(device)
        if not pictures:
            # High noise more often: there motion is decided, and what lies below is learnt from single frames too.
            levels = ((levels + 1) * TRAINING_TIMESTEPS).sqrt().floor() - 1
        dropped = torch.rand(len(clean), 1) < CAPTION_DROPOUT
        texts = torch.where(dropped, empty, tokens[chosen]).to(device)
        with torch.autocast(device.type, dtype=torch.bfloat16):
            prediction = model(task.noisy(clean, noise, levels), levels, texts)
        return _weighted_loss(prediction, noise, task.alphas[levels.long().cpu()], importance[chosen])

    def after_step(steps: int) -> None:
        if steps % VALIDATE_EVERY == 0:
            print(f"step {steps}  validation loss {validate():.5f}", flush=True)

    # On many short sequences of frames the CPU's fused attention is the slower one: half of a step was its gradient.
    with sdpa_kernel(SDPBackend.MATH) if device.type == "cpu" else nullcontext():
        train_for_minutes(
            model,
            loss_of_step,
            minutes=minutes,
            learning_rate=LEARNING_RATE,
            checkpoint=checkpoint,
            average=average,
            after_step=after_step,
        )
    return average


def _validation(
    model: TextToVideo, drawn: CaptionedClips, vae: AutoencoderKL, folder: Path, device: torch.device
) -> Callable[[], float]:
    """The loss on clips and captions, always with the same noise at the same levels, spread over the schedule."""
    tokens, importance = _tokens(drawn.captions, folder), _importance(drawn.places, vae)
    clean = encoded_once(vae, drawn.clips, folder) * float(vae.config.scaling_factor)
    task = _task(model)
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    levels = torch.linspace(0, 999, len(clean)).round()
    noisy = task.noisy(clean, noise, levels)

    @torch.inference_mode()
    def loss() -> float:
        errors = []
        for part in torch.arange(len(clean)).split(CLIPS_PER_STEP):
            with torch.autocast(device.type, dtype=torch.bfloat16):
                prediction = model(noisy[part].to(device), levels[part].to(device), tokens[part].to(device))
            alphas = task.alphas[levels[part].long()]
            errors.append(_weighted_loss(prediction.cpu(), noise[part], alphas, importance[part]) * len(part))
        return float(torch.stack(errors).sum() / len(clean))

    return loss


def _task(model: TextToVideo) -> EpsilonTask:
    task = FAMILY.default_task(model.denoiser)
    assert isinstance(task, EpsilonTask)
    return task


def _importance(places: Tensor, vae: AutoencoderKL) -> Tensor:
    """How much errors count at each place of a latent frame, 1 on average: N H W bool pixels to N 1 1 H/f W/f."""
    scale = 2 ** (len(vae.config.block_out_channels) - 1)
    weights = 1 + (THING_WEIGHT - 1) * F.max_pool2d(places.float()[:, None], scale)
    return (weights / weights.mean())[:, :, None]


def _weighted_loss(prediction: Tensor, noise: Tensor, alphas: Tensor, importance: Tensor) -> Tensor:
    """The mean squared error of predicted noise B T C H W by importance, in units of v: divided by alphas B.

    Without that division high noise hardly counts, where the caption decides what moves and how ("SNR + 1" of Salimans
    & Ho 2022, arXiv 2202.00512, section 4); alphas are the schedule's cumulative ones.
    """
    errors = ((prediction.float() - noise).square() * importance.to(prediction.device)).mean(dim=(1, 2, 3, 4))
    return (errors / alphas.to(errors)).mean()


def _tokens(captions: Sequence[str], folder: Path) -> Tensor:
    """Tokens N x N_max int64 as the pipeline pads them."""
    tokenizer = write_tokenizer(folder / "tokenizer")
    found: Tensor = tokenizer(
        [*captions], padding="max_length", max_length=tokenizer.model_max_length, truncation=True, return_tensors="pt"
    ).input_ids
    return found
