"""Train the embedded text-to-video teacher: its VAE of single frames, then its denoiser with its text encoder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn
from transformers import CLIPTextModel

from vdmini.models.videocrafter import FAMILY
from vdmini.models.videocrafter_unet import VideoCrafterUNet
from vdmini.tasks.epsilon import EpsilonTask
from vdmini.tasks.schedule import TRAINING_TIMESTEPS
from vdmini_bench.data.synthetic import FRAMES_PER_SECOND
from vdmini_bench.embedded.captioned_training import (
    CaptionedClips,
    CaptionedDenoiser,
    CaptionedLatents,
    Recipe,
    padded_tokens,
    thing_importance,
    train_captioned,
)
from vdmini_bench.embedded.denoiser import encoded_once
from vdmini_bench.embedded.text_to_video import (
    build_frame_vae,
    build_text_denoiser,
    build_text_encoder,
    write_tokenizer,
)
from vdmini_bench.embedded.training_loop import half_where_fast, train_steps
from vdmini_bench.embedded.vae import KL_WEIGHT, reconstruction_loss, set_scale

FRAMES_PER_STEP = 16
VAE_LEARNING_RATE = 1e-3
RECIPE = Recipe(clips=8, pictures=40, learning_rate=8e-4)


class TextToVideo(CaptionedDenoiser):
    """VideoCrafter's network and CLIP's, which predict the noise."""

    def __init__(self, denoiser: VideoCrafterUNet, text_encoder: CLIPTextModel) -> None:
        super().__init__()
        self.denoiser = denoiser
        self.text_encoder = text_encoder
        task = FAMILY.default_task(denoiser)
        assert isinstance(task, EpsilonTask)
        self.task = task

    def forward(self, noisy: Tensor, timesteps: Tensor, tokens: Tensor) -> Tensor:
        """The noise B T C H W in latents at timesteps B, given tokens B N."""
        context = self.text_encoder(tokens).last_hidden_state
        prediction = self.denoiser(noisy.transpose(1, 2), timesteps, context, fps=float(FRAMES_PER_SECOND))
        predicted: Tensor = prediction.sample.transpose(1, 2)
        return predicted

    def pictures(self, clean: Tensor) -> Tensor:
        moments = torch.randint(0, clean.shape[1], (len(clean),))
        return clean[torch.arange(len(clean)), moments][:, None]

    def draw_levels(self, count: int, pictures: bool) -> Tensor:
        levels = self.task.draw_levels(count, torch.default_generator)
        # High noise more often: there motion is decided, and what lies below is learnt from single frames too.
        return levels if pictures else ((levels + 1) * TRAINING_TIMESTEPS).sqrt().floor() - 1

    def spread_levels(self, count: int) -> Tensor:
        return torch.linspace(0, 999, count).round()

    def errors(self, clean: Tensor, noise: Tensor, levels: Tensor, tokens: Tensor) -> Tensor:
        """Errors in the noise, in units of v: divided by the schedule's cumulative alphas.

        Without that division high noise hardly counts, where the caption decides what moves and how ("SNR + 1" of
        Salimans & Ho 2022, arXiv 2202.00512, section 4).
        """
        prediction = self(self.task.noisy(clean, noise, levels), levels, tokens).float()
        alphas = self.task.alphas[levels.long().cpu()].to(prediction)
        return (prediction - noise).square() / alphas.view(-1, 1, 1, 1, 1)


def train_frame_vae(
    clips: Tensor, steps: int, checkpoint: Path, device: torch.device, encoder: nn.Module | None = None
) -> AutoencoderKL:
    """Train the VAE for `steps` on frames of `clips` N T C H W uint8; in eval mode with its scaling factor set.

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
        with half_where_fast(device):
            posterior = vae.encode(frames).latent_dist
            decoded = vae.decode(posterior.sample()).sample.float()
        return reconstruction_loss(decoded, frames) + KL_WEIGHT * posterior.kl().mean() / posterior.mean[0].numel()

    train_steps(vae, loss_of_step, steps=steps, learning_rate=VAE_LEARNING_RATE, checkpoint=checkpoint)
    set_scale(vae, clips)
    return vae


def train_text_denoiser(
    drawn: CaptionedClips,
    validation: CaptionedClips,
    vae: AutoencoderKL,
    steps: int,
    checkpoint: Path,
    device: torch.device,
    initial: TextToVideo | None = None,
) -> TextToVideo:
    """Train for `steps` on captioned clips; returns the exponential moving average of the networks.

    Prints the average's loss on the validation clips, which are of the same kind, as it goes. Starts from `initial`
    where given; a checkpoint goes before it.
    """
    folder = checkpoint.parent
    torch.manual_seed(0)
    model = initial or TextToVideo(build_text_denoiser(), build_text_encoder())
    clips, unseen = (_encoded(each, vae, folder) for each in (drawn, validation))
    return train_captioned(model, clips, unseen, _tokens([""], folder), RECIPE, steps, checkpoint, device)


def _encoded(drawn: CaptionedClips, vae: AutoencoderKL, folder: Path) -> CaptionedLatents:
    latents = encoded_once(vae, drawn.clips, folder) * float(vae.config.scaling_factor)
    scale = 2 ** (len(vae.config.block_out_channels) - 1)
    return CaptionedLatents(latents, _tokens(drawn.captions, folder), thing_importance(drawn.places, scale))


def _tokens(captions: Sequence[str], folder: Path) -> Tensor:
    return padded_tokens(write_tokenizer(folder / "tokenizer"), captions)
