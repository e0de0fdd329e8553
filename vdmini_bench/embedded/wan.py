"""The embedded transformer teacher's networks: Wan's own classes at a size a laptop can run, all blocks alike."""

from __future__ import annotations

from typing import Any

from diffusers import AutoencoderKLWan, UniPCMultistepScheduler, WanTransformer3DModel
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.normalizers import Lowercase
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast, UMT5Config, UMT5EncoderModel

from vdmini.models.wan import EMBEDDED_CHANNELS, EMBEDDED_TEXT_TOKENS
from vdmini_bench.embedded.text_to_video import caption_words

BLOCKS = 12
# The pixels on a side of what the VAE makes one latent of.
PATCH = 8
TEXT_WIDTH = 64
PADDING, END, UNKNOWN = "<pad>", "</s>", "<unk>"


def build_video_vae() -> AutoencoderKLWan:
    """A causal video VAE on patches of 8x8 pixels, as Wan 2.2's of 2x2: B 3 9 32 32 in [-1, 1] to B 32 9 4 4."""
    return AutoencoderKLWan(
        base_dim=80,
        z_dim=EMBEDDED_CHANNELS,
        dim_mult=[1],
        num_res_blocks=1,
        temperal_downsample=[],
        in_channels=3 * PATCH**2,
        out_channels=3 * PATCH**2,
        patch_size=PATCH,
        scale_factor_temporal=1,
        scale_factor_spatial=PATCH,
        latents_mean=[0.0] * EMBEDDED_CHANNELS,
        latents_std=[1.0] * EMBEDDED_CHANNELS,
    )


def build_transformer() -> WanTransformer3DModel:
    """Twelve equal blocks over 48 tokens: B 32 9 4 4 noisy latents in, their velocity out.

    A token is 3 frames of a place: about what Wan's VAE makes one latent of.
    """
    return WanTransformer3DModel(
        patch_size=(3, 1, 1),
        num_attention_heads=4,
        attention_head_dim=32,
        in_channels=EMBEDDED_CHANNELS,
        out_channels=EMBEDDED_CHANNELS,
        text_dim=TEXT_WIDTH,
        freq_dim=64,
        ffn_dim=384,
        num_layers=BLOCKS,
        rope_max_seq_len=64,
    )


def build_text_encoder() -> UMT5EncoderModel:
    """A two-layer UMT5 encoder of the drawn world's words, trained together with the transformer."""
    words = vocabulary()
    config = UMT5Config(
        vocab_size=len(words),
        d_model=TEXT_WIDTH,
        d_kv=16,
        d_ff=128,
        num_layers=2,
        num_heads=4,
        dropout_rate=0.0,
        pad_token_id=words[PADDING],
        eos_token_id=words[END],
    )
    return UMT5EncoderModel(config)


def vocabulary() -> dict[str, int]:
    """A number for each word of a caption, after those of padding, of a text's end and of any other word."""
    return {word: number for number, word in enumerate((PADDING, END, UNKNOWN, *caption_words()))}


def build_tokenizer() -> PreTrainedTokenizerFast:
    """A token a word, and one at the end, as UMT5's."""
    words = vocabulary()
    tokenizer: Any = Tokenizer(WordLevel(words, unk_token=UNKNOWN))
    tokenizer.normalizer, tokenizer.pre_tokenizer = Lowercase(), Whitespace()
    tokenizer.post_processor = TemplateProcessing(single=f"$A {END}", special_tokens=[(END, words[END])])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PADDING,
        eos_token=END,
        unk_token=UNKNOWN,
        model_max_length=EMBEDDED_TEXT_TOKENS,
    )


def build_flow_scheduler() -> UniPCMultistepScheduler:
    """Wan's sampler, shifted towards noise as for its smallest clips."""
    return UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, num_train_timesteps=1000, flow_shift=3.0
    )
