"""Train the embedded transformer teacher: its VAE of clips, then its transformer with its text encoder."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import torch
from diffusers import AutoencoderKLWan, WanTransformer3DModel
from torch import Tensor
from transformers import UMT5EncoderModel

from vdmini.conditioning.pixels import channel_values
from vdmini.models.wan import FAMILY
from vdmini.optimization import compile_denoiser
from vdmini.tasks.flow import FlowTask
from vdmini_bench.data.captions import Side
from vdmini_bench.data.synthetic import LENGTHS, SHAPES
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
from vdmini_bench.embedded.linear_vae import start_linear
from vdmini_bench.embedded.training_loop import half_where_fast, train_steps
from vdmini_bench.embedded.vae import KL_WEIGHT, reconstruction_loss
from vdmini_bench.embedded.wan import (
    build_text_encoder,
    build_tokenizer,
    build_transformer,
    build_video_vae,
    vocabulary,
)

CLIPS_PER_VAE_STEP = 4
VAE_LEARNING_RATE = 3e-4
SQUARE_WEIGHT = 4.0
RECIPE = Recipe(clips=32, pictures=96, learning_rate=1e-3)
CLIPS_TO_NORMALISE = 512
# Of 0 all latents are of one size, of 1 as large as their part of a frame.
SPECTRUM = 0.5
ENCODED_AT_ONCE = 16
# How often what a word changes is added to it. Sampled so, a teacher draws nine shapes in ten that drew eight.
EMPHASIS = 1.0


class FlowTextToVideo(CaptionedDenoiser):
    """Wan's transformer and UMT5, which predict the velocity.

    With a `guide`, trained networks that stay as they are, it learns to follow words more closely than clips alone
    teach it: its target is moved on by what the guide changes where shapes or sides in the caption are others, as
    guidance is learnt in Meng et al. 2023 (arXiv 2210.03142) and Tang et al. 2025 (arXiv 2502.12154).
    """

    def __init__(
        self, denoiser: WanTransformer3DModel, text_encoder: UMT5EncoderModel, guide: FlowTextToVideo | None = None
    ) -> None:
        super().__init__()
        # No module of this one: it is neither trained nor saved.
        self.guides = () if guide is None else (guide,)
        self.denoiser = denoiser
        self.text_encoder = text_encoder
        task = FAMILY.default_task(denoiser)
        assert isinstance(task, FlowTask)
        self.task = task

    def forward(self, noisy: Tensor, timesteps: Tensor, tokens: Tensor) -> Tensor:
        """The velocity B T C H W in latents at timesteps B, given tokens B L: as the pipeline, zeros after a text."""
        mask = tokens.ne(self.text_encoder.config.pad_token_id).long()
        texts = self.text_encoder(tokens, mask).last_hidden_state * mask[..., None]
        inputs = {"hidden_states": noisy.transpose(1, 2), "timestep": timesteps, "encoder_hidden_states": texts}
        predicted: Tensor = self.denoiser(**inputs).sample
        return predicted.transpose(1, 2)

    def pictures(self, clean: Tensor) -> Tensor:
        """The first latents, as many as one token takes."""
        return clean[:, : self.denoiser.config.patch_size[0]]

    def draw_levels(self, count: int, pictures: bool) -> Tensor:
        # Evenly, not as the task shifts them: edges are drawn at the low noise that it hardly ever draws.
        return torch.rand(count)

    def spread_levels(self, count: int) -> Tensor:
        return (torch.arange(count) + 0.5) / count

    def errors(self, clean: Tensor, noise: Tensor, levels: Tensor, tokens: Tensor) -> Tensor:
        scaled, timesteps = self.task.network_input(self.task.noisy(clean, noise, levels), levels)
        target = noise - clean
        for guide in self.guides:
            with torch.no_grad():
                others = guide(scaled, timesteps, contradicted(tokens))
                target = target + EMPHASIS * (guide(scaled, timesteps, tokens) - others).float()
        return (self(scaled, timesteps, tokens).float() - target).square()


def contradicted(tokens: Tensor) -> Tensor:
    """Captions' tokens B L with every shape another one, or with the other side in half of those that name a side.

    Which, the default generator draws. No caption stays none.
    """
    words = vocabulary()
    shapes, sides = (tokens.new_tensor([words[each] for each in names]) for names in (SHAPES, get_args(Side)))
    turns = torch.randint(1, len(SHAPES), (len(tokens), 1), device=tokens.device)
    by_side = torch.isin(tokens, sides).any(1, keepdim=True) & (torch.rand(turns.shape, device=tokens.device) < 0.5)
    return torch.where(by_side, _turned(tokens, sides, 1), _turned(tokens, shapes, turns))


def _turned(tokens: Tensor, ring: Tensor, turns: Tensor | int) -> Tensor:
    """Tokens B L with each that is in the ring moved on in it."""
    places = (tokens[..., None] == ring).int().argmax(-1)
    return torch.where(torch.isin(tokens, ring), ring[(places + turns) % len(ring)], tokens)


def train_video_vae(drawn: CaptionedClips, steps: int, checkpoint: Path, device: torch.device) -> AutoencoderKLWan:
    """Train the VAE for `steps` on drawn clips; in eval mode, with its latents' means and sizes set, these 1 in all.

    It starts as the best linear one. Errors count more where clips show their things, and by their squares too: of
    absolute errors alone it first learns to leave small things out.
    """
    importance = thing_importance(drawn.places, 1)
    torch.manual_seed(0)
    vae = build_video_vae()
    scale = start_linear(vae, _pixels(drawn.clips[:CLIPS_TO_NORMALISE], torch.device("cpu")))
    vae = vae.to(device)

    def loss_of_step(step: int) -> Tensor:
        chosen = torch.randint(0, len(drawn.clips), (CLIPS_PER_VAE_STEP,))
        pixels, weights = _pixels(drawn.clips[chosen], device), importance[chosen].to(device)
        if step % 2:
            pixels, weights = pixels.flip(-1), weights.flip(-1)
        with half_where_fast(device):
            posterior = vae.encode(pixels).latent_dist
            decoded = vae.decode(posterior.sample()).sample.float()
        error = reconstruction_loss(*(each.transpose(1, 2).flatten(0, 1) for each in (decoded, pixels)))
        missed = decoded - pixels
        error = error + (weights * (missed.abs() + SQUARE_WEIGHT * missed.square())).mean()
        return error + KL_WEIGHT * posterior.kl().mean() / posterior.mean[0].numel()

    train_steps(vae, loss_of_step, steps=steps, learning_rate=VAE_LEARNING_RATE, checkpoint=checkpoint)
    latents = encode_videos(vae.eval(), drawn.clips[:CLIPS_TO_NORMALISE])
    deviations, means = torch.std_mean(latents, dim=(0, 1, 3, 4))
    # The less of a frame a latent is, the smaller it stays: what things there are is then learnt before their edges.
    shares = (scale / scale.square().mean().sqrt()) ** SPECTRUM
    shares = shares / shares.square().mean().sqrt()
    vae.register_to_config(latents_mean=means.tolist(), latents_std=(deviations / shares).tolist())
    return vae


def train_transformer(
    drawn: CaptionedClips,
    validation: CaptionedClips,
    vae: AutoencoderKLWan,
    steps: int,
    checkpoint: Path,
    device: torch.device,
    seed: int = 0,
    initial: FlowTextToVideo | None = None,
    compiled: bool = False,
    emphasised: bool = False,
) -> FlowTextToVideo:
    """Train for `steps` on captioned clips; returns the exponential moving average of the networks.

    `seed` chooses the weights that training starts from, where no `initial` ones are given; a checkpoint goes before.
    With `emphasised` these are the guide too.
    """
    torch.manual_seed(seed)
    model = initial or FlowTextToVideo(build_transformer(), build_text_encoder())
    if emphasised:
        guide = copy.deepcopy(model).requires_grad_(False).to(device).eval()
        model = FlowTextToVideo(model.denoiser, model.text_encoder, guide)
        if compiled:
            compile_denoiser(guide.denoiser)
    clips, unseen = (_encoded(each, vae, checkpoint.parent) for each in (drawn, validation))
    return train_captioned(model, clips, unseen, _tokens([""]), RECIPE, steps, checkpoint, device, compiled)


@torch.inference_mode()
def encode_videos(vae: AutoencoderKLWan, clips: Tensor) -> Tensor:
    """Encode N T C H W uint8 clips to latents N T C H W float32 as the pipeline scales them."""
    encoded = torch.cat(
        [vae.encode(_pixels(part, vae.device)).latent_dist.mean for part in clips.split(ENCODED_AT_ONCE)]
    )
    means, deviations = (channel_values(vae.config[name]) for name in ("latents_mean", "latents_std"))
    return ((encoded.transpose(1, 2).cpu() - means) / deviations).contiguous()


def _pixels(clips: Tensor, device: torch.device) -> Tensor:
    """Clips B T C H W uint8 as the VAE reads them: B C T H W float32 in [-1, 1], so many frames as it can."""
    return clips[:, : LENGTHS[0]].transpose(1, 2).to(device).float() / 127.5 - 1


def _encoded(drawn: CaptionedClips, vae: AutoencoderKLWan, folder: Path) -> CaptionedLatents:
    latents = encoded_once(vae, drawn.clips, folder, encode_videos)
    importance = thing_importance(drawn.places, vae.config.scale_factor_spatial)
    return CaptionedLatents(latents, _tokens(drawn.captions), importance)


def _tokens(captions: Sequence[str]) -> Tensor:
    return padded_tokens(build_tokenizer(), captions)
