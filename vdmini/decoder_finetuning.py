"""Fine-tuning of a smaller VAE decoder on clips: reconstruction, perceptual and adversarial losses.

Source: the decoder of VDMini-I2V (Wu et al., arXiv 2411.18375), by the recipe of latent diffusion's VAEs (Rombach et
al., arXiv 2112.10752): L1 and perceptual losses, and a patch discriminator with a hinge loss that joins later.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl_temporal_decoder import AutoencoderKLTemporalDecoder
from torch import Tensor, nn

from vdmini.conditioning.pixels import clip_pixels
from vdmini.distill.average import Average
from vdmini.distill.settings import DivergedError
from vdmini.files import replacing
from vdmini.latents import ClipSource
from vdmini.losses import adaptive_weight, mca_discriminator_loss, mca_generator_loss

# Decoded and real images N 3 H W in [-1, 1] to how unlike they look: a scalar.
Perceptual = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class FinetuneSettings:
    """How long and how hard to fine-tune a decoder.

    A step sees `frames` consecutive frames of each of `batch_size` clips. The learning rate warms up over 3 % of the
    steps and falls as a cosine to a hundredth. After `discriminator_start` steps the adversary trains too, and pulls at
    the decoded frames `lambda_adversarial` times as hard as both other losses together.
    """

    steps: int
    batch_size: int = 2
    frames: int = 8
    learning_rate: float = 1e-4
    lambda_perceptual: float = 1.0
    lambda_adversarial: float = 0.1
    discriminator_start: int = 0
    ema_decay: float = 0.99
    gradient_checkpointing: bool = False
    checkpoint_every: int = 100
    seed: int = 0


@dataclass(frozen=True)
class FinetuneLosses:
    """The losses of one step, the first of which is 1, before their weights; those that are off are 0."""

    step: int
    reconstruction: float
    perceptual: float
    adversarial: float
    discriminator: float
    gradient_norm: float


class PatchDiscriminator(nn.Sequential):
    """Scores clips B 3 T H W in [-1, 1] by patches, B 1 T H/8 W/8: PatchGAN (arXiv 1611.07004), over time too."""

    def __init__(self, channels: int = 64) -> None:
        layers: list[nn.Module] = [nn.Conv3d(3, channels, (3, 4, 4), (1, 2, 2), 1), nn.LeakyReLU(0.2)]
        for before in (channels, 2 * channels):
            layers += [nn.Conv3d(before, 2 * before, (3, 4, 4), (1, 2, 2), 1), nn.GroupNorm(8, 2 * before)]
            layers.append(nn.LeakyReLU(0.2))
        super().__init__(*layers, nn.Conv3d(4 * channels, 1, 3, padding=1))


def finetune_decoder(
    student: nn.Module,
    clips: ClipSource,
    settings: FinetuneSettings,
    checkpoint: Path,
    perceptual: Perceptual,
    on_step: Callable[[FinetuneLosses], None] = lambda losses: None,
) -> nn.Module:
    """Train the decoder of a VAE that `prune_decoder` made, in place and in its own precision, and return the VAE.

    The frozen encoder gives latents, the means of its posterior; the decoder ends as its moving average. All randomness
    of a step follows from (seed, step): a training continued from `checkpoint` equals an unbroken one to the last bit.

    Raises:
        DivergedError: a loss or a gradient is not finite.
        UnreadableClipError: a clip cannot be read.
        ValueError: there are no clips, one is too short, or `checkpoint` is of other settings, clips or sizes.
    """
    training = _Finetuning(student, clips, settings, perceptual)
    training.load(checkpoint)
    while training.step < settings.steps:
        losses = training.train_step()
        if wrong := [f"{name} is {value}" for name, value in asdict(losses).items() if not math.isfinite(value)]:
            good = f"the last good checkpoint is {checkpoint}" if checkpoint.exists() else "no checkpoint was written"
            raise DivergedError(f"step {losses.step}: {', '.join(wrong)}; {good}; lower the learning rate")
        training.update()
        on_step(losses)
        if training.step % settings.checkpoint_every == 0 or training.step == settings.steps:
            training.save(checkpoint)
    training.decoder.load_state_dict(training.average.gather())
    return student.requires_grad_(False).eval()


class _Finetuning:
    """A decoder in training, and everything that changes meanwhile."""

    def __init__(
        self, student: nn.Module, clips: ClipSource, settings: FinetuneSettings, perceptual: Perceptual
    ) -> None:
        if not clips.names:
            raise ValueError("there are no clips to fine-tune the decoder on: give at least one")
        vae: Any = student.requires_grad_(False).eval()
        self.clips, self.settings, self.perceptual, self.step = clips, settings, perceptual, 0
        if settings.gradient_checkpointing:
            vae.enable_gradient_checkpointing()
        self.vae, self.decoder = vae, vae.decoder.requires_grad_(True)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.seed)
            self.discriminator = PatchDiscriminator().to(vae.device)
        self.optimizers = [
            torch.optim.AdamW(network.parameters(), lr=settings.learning_rate, betas=(0.5, 0.9), weight_decay=0.0)
            for network in (self.decoder, self.discriminator)
        ]
        self.average = Average(self.decoder)
        self.configuration = {
            **asdict(settings),
            "clips": [*clips.names],
            "sizes": [tuple(weight.shape) for weight in self.decoder.parameters()],
        }

    def train_step(self) -> FinetuneLosses:
        """The losses of the next batch, whose gradients `update` takes a step with."""
        settings, real = self.settings, self._draw()
        frames = real.flatten(0, 1)
        with torch.no_grad():
            latents = self.vae.encode(frames).latent_dist.mode()
        together = {"num_frames": settings.frames} if isinstance(self.vae, AutoencoderKLTemporalDecoder) else {}
        decoded = self.vae.decode(latents, **together).sample
        # Losses are differentiated at the decoded frames: one pass back through the decoder serves all.
        made = decoded.detach().requires_grad_()
        reconstruction, perceptual = (made - frames).abs().mean(), torch.zeros((), device=made.device)
        if settings.lambda_perceptual:
            perceptual = self.perceptual(made, frames)
        (pull,) = torch.autograd.grad(reconstruction + settings.lambda_perceptual * perceptual, made)
        adversarial = hinge = torch.zeros(())
        if settings.lambda_adversarial and self.step >= settings.discriminator_start:
            clips = made.unflatten(0, real.shape[:2]).transpose(1, 2)
            adversarial = mca_generator_loss(self.discriminator(clips))
            (push,) = torch.autograd.grad(adversarial, made)
            pull = pull + settings.lambda_adversarial * adaptive_weight(float(pull.norm()), float(push.norm())) * push
            scores = self.discriminator(torch.cat([clips.detach(), real.transpose(1, 2)]))
            hinge = mca_discriminator_loss(*scores.chunk(2))
            hinge.backward()
        decoded.backward(pull)
        norm = nn.utils.clip_grad_norm_(self.decoder.parameters(), 1.0)
        values = (reconstruction, perceptual, adversarial, hinge, norm)
        return FinetuneLosses(self.step + 1, *(float(value.detach()) for value in values))

    def update(self) -> None:
        """Take a step; the discriminator's optimiser does nothing before its start, when there are no gradients."""
        self.step += 1
        progress = self.step / self.settings.steps
        factor = min(1.0, progress / 0.03) * (0.505 + 0.495 * math.cos(math.pi * progress))
        self.optimizers[0].param_groups[0]["lr"] = self.settings.learning_rate * factor
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad()
        self.average.update(self.decoder, min(self.settings.ema_decay, (1 + self.step) / (10 + self.step)))

    def _draw(self) -> Tensor:
        """The next batch of clips B T C H W in [-1, 1]."""
        frames, generator = self.settings.frames, torch.Generator()
        generator.manual_seed(self.settings.seed * 1_000_003 + self.step)
        batch = []
        for index in torch.randint(len(self.clips.names), (self.settings.batch_size,), generator=generator).tolist():
            clip = self.clips.clip(index)
            if len(clip.frames) < frames:
                raise ValueError(f"clip {clip.name!r} has {len(clip.frames)} frames, a step needs {frames}: set fewer")
            start = int(torch.randint(len(clip.frames) - frames + 1, (), generator=generator))
            pixels = clip_pixels(clip, multiple=2 ** (len(self.vae.config.block_out_channels) - 1))
            batch.append(pixels[start : start + frames])
        return torch.stack(batch).to(self.vae.device, self.vae.dtype)

    def save(self, checkpoint: Path) -> None:
        """Write the whole state, so that a kill leaves the old one or the new one."""
        state = {
            "configuration": self.configuration,
            "step": self.step,
            "average": self.average.gather(),
            "states": [part.state_dict() for part in self._parts()],
        }
        with replacing(checkpoint) as partial:
            torch.save(state, partial)

    def load(self, checkpoint: Path) -> None:
        """Continue from `checkpoint` where there is one; raises ValueError for one of another training."""
        if not checkpoint.exists():
            return
        state = torch.load(checkpoint, map_location="cpu", weights_only=True)
        if changed := [name for name, now in self.configuration.items() if state["configuration"].get(name) != now]:
            raise ValueError(f"{checkpoint} is of other {', '.join(changed)}: remove it to begin anew")
        for part, saved in zip(self._parts(), state["states"], strict=True):
            part.load_state_dict(saved)
        self.average.scatter(state["average"])
        self.step = state["step"]

    def _parts(self) -> list[Any]:
        return [self.decoder, self.discriminator, *self.optimizers]
