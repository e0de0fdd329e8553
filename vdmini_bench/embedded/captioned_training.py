"""Train a text encoder and a denoiser together on captioned clips of the drawn world."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import PreTrainedTokenizerBase

from vdmini.optimization import compile_denoiser
from vdmini_bench.embedded.training_loop import half_where_fast, train_steps

# One step of these is on single frames of as many clips as half its time pays for: five times the captions teach what
# things look like, as images beside clips do in Ho et al. 2022 (arXiv 2204.03458, section 3).
PICTURES_EVERY = 6
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


@dataclass(frozen=True)
class CaptionedLatents:
    """Scaled latents N T C H W of clips, their captions' tokens N L, and how much errors count: N 1 1 H W."""

    latents: Tensor
    tokens: Tensor
    importance: Tensor


@dataclass(frozen=True)
class Recipe:
    """How a teacher is trained: clips a step, pictures in the steps on single frames, and the learning rate."""

    clips: int
    pictures: int
    learning_rate: float


class CaptionedDenoiser(nn.Module, ABC):
    """The two networks trained together: the denoiser and the text encoder it attends to."""

    denoiser: Any

    @abstractmethod
    def pictures(self, clean: Tensor) -> Tensor:
        """Latents of single frames B 1 C H W out of those of clips B T C H W."""

    @abstractmethod
    def draw_levels(self, count: int, pictures: bool) -> Tensor:
        """Noise levels to train on, from the default generator."""

    @abstractmethod
    def spread_levels(self, count: int) -> Tensor:
        """Noise levels to validate on, evenly spread."""

    @abstractmethod
    def errors(self, clean: Tensor, noise: Tensor, levels: Tensor, tokens: Tensor) -> Tensor:
        """Squared errors B T C H W of what is predicted of clean latents and noise at levels B, for tokens B L."""


Denoiser = TypeVar("Denoiser", bound=CaptionedDenoiser)


def train_captioned(
    model: Denoiser,
    drawn: CaptionedLatents,
    validation: CaptionedLatents,
    empty: Tensor,
    recipe: Recipe,
    steps: int,
    checkpoint: Path,
    device: torch.device,
    compiled: bool = False,
) -> Denoiser:
    """Train for `steps` on captioned clips; returns the exponential moving average of the networks.

    `empty` 1 L are the tokens of no caption. Prints the average's loss on the validation clips as it goes. A checkpoint
    goes before the model's own weights. With `compiled`, torch compiles the denoiser's blocks: it needs a C++ compiler.
    """
    # In eval mode from the start: networks this small have nothing to spare for dropout.
    model = model.to(device).eval()
    average = copy.deepcopy(model).requires_grad_(False)
    if compiled:
        compile_denoiser(model.denoiser)
    validate = _validation(average, validation, recipe.clips, device)

    def loss_of_step(step: int) -> Tensor:
        pictures = step % PICTURES_EVERY == 1
        chosen = torch.randint(0, len(drawn.latents), (recipe.pictures if pictures else recipe.clips,))
        clean = drawn.latents[chosen]
        if pictures:
            clean = model.pictures(clean)
        clean = clean.to(device)
        noise, levels = torch.randn_like(clean), model.draw_levels(len(clean), pictures).to(device)
        dropped = torch.rand(len(clean), 1) < CAPTION_DROPOUT
        texts = torch.where(dropped, empty, drawn.tokens[chosen]).to(device)
        with half_where_fast(device):
            errors = model.errors(clean, noise, levels, texts)
        return (errors * drawn.importance[chosen].to(device)).mean()

    def after_step(done: int) -> None:
        if done % VALIDATE_EVERY == 0:
            print(f"step {done}  validation loss {validate():.5f}", flush=True)

    # On many short sequences of tokens the CPU's fused attention is the slower one: half of a step was its gradient.
    with sdpa_kernel(SDPBackend.MATH) if device.type == "cpu" else nullcontext():
        train_steps(
            model,
            loss_of_step,
            steps=steps,
            learning_rate=recipe.learning_rate,
            checkpoint=checkpoint,
            average=average,
            after_step=after_step,
        )
    return average


def thing_importance(places: Tensor, scale: int) -> Tensor:
    """How much errors count at each place of a latent frame, 1 on average: N H W bool pixels to N 1 1 H/s W/s."""
    weights = 1 + (THING_WEIGHT - 1) * F.max_pool2d(places.float()[:, None], scale)
    return (weights / weights.mean())[:, :, None]


def padded_tokens(tokenizer: PreTrainedTokenizerBase, captions: Sequence[str]) -> Tensor:
    """Tokens N L int64 as a pipeline pads them."""
    found: Tensor = tokenizer(
        [*captions], padding="max_length", max_length=tokenizer.model_max_length, truncation=True, return_tensors="pt"
    ).input_ids
    return found


def _validation(
    model: CaptionedDenoiser, drawn: CaptionedLatents, clips_at_once: int, device: torch.device
) -> Callable[[], float]:
    """The loss on clips and captions, always with the same noise at the same levels, spread over the schedule."""
    noise = torch.randn(drawn.latents.shape, generator=torch.Generator().manual_seed(0))
    levels = model.spread_levels(len(noise))

    @torch.inference_mode()
    def loss() -> float:
        errors = []
        # The model may draw something too.
        torch.manual_seed(0)
        for part in torch.arange(len(noise)).split(clips_at_once):
            given = (drawn.latents[part], noise[part], levels[part], drawn.tokens[part])
            with half_where_fast(device):
                found = model.errors(*(each.to(device) for each in given)).cpu()
            errors.append((found * drawn.importance[part]).mean() * len(part))
        return float(torch.stack(errors).sum() / len(noise))

    return loss
