"""The embedded text-to-video teacher's networks: VideoCrafter2's classes and topology at a size a laptop can run."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from diffusers import AutoencoderKL, DDIMScheduler
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from vdmini.models.videocrafter_pipeline import ddim_scheduler
from vdmini.models.videocrafter_unet import VideoCrafterUNet
from vdmini_bench.data.captions import MOTIONS, PAIR_MOTIONS, RADII
from vdmini_bench.data.synthetic import BACKGROUNDS, COLOURS, FRAMES, SHAPES
from vdmini_bench.embedded.architecture import LATENT_CHANNELS, VAE

LATENT_SIZE = 8
CONTEXT_WIDTH = 128
# The longest sentence has 16 words, and a token at either end.
TEXT_TOKENS = 20
START, END = "<|startoftext|>", "<|endoftext|>"


def build_frame_vae() -> AutoencoderKL:
    """A 4x compressing VAE that knows single frames: B C 32 32 in [-1, 1] to B 4 8 8 latents."""
    return AutoencoderKL(up_block_types=("UpDecoderBlock2D",) * 3, **VAE)


def build_text_denoiser() -> VideoCrafterUNet:
    """VideoCrafter2's four-stage UNet at small widths: B 4 10 8 8 noisy latents in, their noise out."""
    return VideoCrafterUNet(
        sample_size=(LATENT_SIZE, LATENT_SIZE),
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        block_out_channels=(96, 64, 64, 64),
        cross_attention_dim=CONTEXT_WIDTH,
        attention_head_dim=16,
        num_frames=FRAMES,
    )


def build_text_encoder() -> CLIPTextModel:
    """A two-layer CLIP text tower over `vocabulary`, trained together with the denoiser."""
    tokens, _ = vocabulary()
    config = CLIPTextConfig(
        vocab_size=len(tokens),
        hidden_size=CONTEXT_WIDTH,
        intermediate_size=2 * CONTEXT_WIDTH,
        projection_dim=CONTEXT_WIDTH,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=TEXT_TOKENS,
        bos_token_id=tokens[START],
        eos_token_id=tokens[END],
        pad_token_id=tokens[END],
    )
    return CLIPTextModel(config)


def build_text_scheduler() -> DDIMScheduler:
    """VideoCrafter2's noise schedule with timesteps that start at the last one.

    In ten steps the published spacing starts at timestep 901: there the network has learnt to read colours off its
    input, and pure noise has none (Lin et al. 2024, arXiv 2305.08891).
    """
    scheduler: DDIMScheduler = DDIMScheduler.from_config(ddim_scheduler().config, timestep_spacing="trailing")
    return scheduler


def write_tokenizer(folder: Path) -> CLIPTokenizer:
    """Write `vocab.json` and `merges.txt` and read them back as a CLIPTokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    tokens, merges = vocabulary()
    (folder / "vocab.json").write_text(json.dumps(tokens, indent=0) + "\n", encoding="utf-8")
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    tokenizer: CLIPTokenizer = CLIPTokenizer.from_pretrained(
        folder, model_max_length=TEXT_TOKENS, bos_token=START, eos_token=END, unk_token=END, pad_token=END
    )
    return tokenizer


def caption_words() -> list[str]:
    """Every word of the drawn world's sentences, once each, in order."""
    verbs = [MOTIONS[name][0] for name in MOTIONS]
    plural = [MOTIONS[name][0].removesuffix("s") for name in PAIR_MOTIONS]
    grammar = ("a", "an", "is", "left", "right", "of", "and", "both", "over", "background")
    phrases = [*verbs, *plural, *COLOURS, *SHAPES, *BACKGROUNDS, *(size for size in RADII if size), *grammar]
    return sorted({word for phrase in phrases for word in phrase.split()})


def vocabulary() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """The tokens with their numbers, and the merges by which byte-pair encoding makes each word of a caption one token.

    Other words of the alphabet are spelled.
    """
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    tokens = [*letters, *(f"{letter}</w>" for letter in letters)]
    merges: list[tuple[str, str]] = []
    for word in caption_words():
        symbols = _merged([*word[:-1], f"{word[-1]}</w>"], merges)
        # Later merges never stand in the way of earlier words: the earliest that fits is always taken first.
        while len(symbols) > 1:
            merges.append((symbols[0], symbols[1]))
            symbols = _merged(symbols, merges[-1:])
    tokens += [first + second for first, second in merges]
    return {token: number for number, token in enumerate(dict.fromkeys([*tokens, START, END]))}, merges


def _merged(symbols: list[str], merges: Sequence[tuple[str, str]]) -> list[str]:
    """Symbols of a word after byte-pair merges, the earliest first."""
    for first, second in merges:
        place = 0
        while place + 1 < len(symbols):
            if (symbols[place], symbols[place + 1]) == (first, second):
                symbols = [*symbols[:place], first + second, *symbols[place + 2 :]]
            place += 1
    return symbols
